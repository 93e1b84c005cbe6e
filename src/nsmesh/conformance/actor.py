"""A tester with an identity: low-level calls to a peer, with right headers or deliberately wrong ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from nsmesh import rpc
from nsmesh.core.errors import MeshError, Status
from nsmesh.core.peering import closing
from nsmesh.core.scope import Scope
from nsmesh.core.tokens import token_headers
from nsmesh.model import methods
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceRequest,
    NetworkServiceResponse,
)
from nsmesh.model.registry_path import PATH_HEADER
from nsmesh.security import jws
from nsmesh.security.svid import SvidSource

M = TypeVar("M", bound=Message)
T = TypeVar("T")
Headers = Sequence[tuple[str, str]]

LIFE = 120.0
"""Seconds that our tokens live."""
PATIENCE = 5.0
"""Seconds that a call may take."""


class Peer:
    """One server, as one tester sees it. Made by :meth:`Actor.peer`."""

    def __init__(self, client: rpc.Client, identity: SvidSource) -> None:
        self._client = client
        self._identity = identity

    @property
    def spiffe_id(self) -> str:
        """Who the server is."""
        return self._client.peer.spiffe_id

    def token(self, *, key: ec.EllipticCurvePrivateKey | None = None, **claims: Any) -> str:
        """Return a token for the server; ``claims`` replace those of a right one, None leaves one out."""
        right: dict[str, Any] = {
            "sub": self._identity.spiffe_id,
            "aud": [self.spiffe_id],
            "exp": int(time.time() + LIFE),
        }
        stated = {name: value for name, value in {**right, **claims}.items() if value is not None}
        return jws.sign({"typ": "JWT"}, stated, key or self._identity.svid.key)

    def headers(self, token: str | None = None) -> tuple[tuple[str, str], ...]:
        """Return the two token headers."""
        return token_headers(self.token() if token is None else token, time.time() + LIFE)

    async def call(
        self, method: str, message: Message, kind: type[M], headers: Headers | None = None
    ) -> tuple[M, dict[str, str]]:
        """Call a unary method; return the answer and its initial metadata. Raises what was answered."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        reply = await self._client.unary(
            method,
            message.SerializeToString(),
            metadata=self.headers() if headers is None else headers,
            deadline=deadline,
        )
        return kind.FromString(reply.message), dict(reply.metadata)

    async def stream(
        self, method: str, message: Message, kind: type[M], limit: float | None = PATIENCE
    ) -> AsyncGenerator[M, None]:
        """Call a streaming method and yield the answers; ``limit``: seconds until its deadline."""
        deadline = None if limit is None else asyncio.get_running_loop().time() + limit
        bodies = self._client.stream(
            method, message.SerializeToString(), metadata=self.headers(), deadline=deadline
        )
        async with closing(bodies):
            async for body in bodies:
                yield kind.FromString(body)

    async def request(self, request: NetworkServiceRequest, headers: Headers | None = None) -> Connection:
        """Send a Request."""
        return (await self.call(methods.REQUEST, request, Connection, headers))[0]

    async def close(self, connection: Connection, headers: Headers | None = None) -> None:
        """Send a Close."""
        await self.call(methods.CLOSE, connection, Empty, headers)

    def monitor(self, selector: MonitorScopeSelector) -> AsyncGenerator[ConnectionEvent, None]:
        """Open a stream of MonitorConnections."""
        return self.stream(methods.MONITOR, selector, ConnectionEvent, None)

    async def register(self, entry: Entry, headers: Headers | None = None) -> tuple[Any, dict[str, str]]:
        """Register a service or endpoint, with an empty path unless ``headers`` say otherwise."""
        service = isinstance(entry, NetworkService)
        method = methods.SERVICE_REGISTER if service else methods.ENDPOINT_REGISTER
        sent = (*self.headers(), (PATH_HEADER, "{}")) if headers is None else headers
        return await self.call(method, entry, type(entry), sent)

    async def unregister(self, entry: Entry, headers: Headers | None = None) -> None:
        """Unregister a service or endpoint."""
        service = isinstance(entry, NetworkService)
        method = methods.SERVICE_UNREGISTER if service else methods.ENDPOINT_UNREGISTER
        sent = (*self.headers(), (PATH_HEADER, "{}")) if headers is None else headers
        await self.call(method, entry, Empty, sent)

    async def find(self, template: Entry) -> list[Any]:
        """Return what matches a template, and read to the end of the stream."""
        async with closing(self.watch(template, watch=False)) as found:
            return [entry async for entry, _ in found]

    async def watch(self, template: Entry, *, watch: bool = True) -> AsyncGenerator[tuple[Any, bool], None]:
        """Find with ``watch``: yield each entry, and whether it was deleted."""
        limit = None if watch else PATIENCE
        if isinstance(template, NetworkService):
            services = NetworkServiceQuery(network_service=template, watch=watch)
            async with closing(
                self.stream(methods.SERVICE_FIND, services, NetworkServiceResponse, limit)
            ) as stream:
                async for item in stream:
                    yield item.network_service, item.deleted
            return
        endpoints = NetworkServiceEndpointQuery(network_service_endpoint=template, watch=watch)
        async with closing(
            self.stream(methods.ENDPOINT_FIND, endpoints, NetworkServiceEndpointResponse, limit)
        ) as answers:
            async for answer in answers:
                yield answer.network_service_endpoint, answer.deleted

    async def names(self, template: NetworkServiceEndpoint) -> set[str]:
        """Return the names of the endpoints that match a template."""
        return {entry.name for entry in await self.find(template)}


class Actor:
    """Somebody with a SPIFFE ID. Connections stay until :meth:`aclose`."""

    def __init__(self, identity: SvidSource) -> None:
        self.identity = identity
        self._pool = rpc.Pool(identity=identity, timeout=PATIENCE)

    async def peer(self, url: str) -> Peer:
        """Return a connected peer; raises as a dial does."""
        return Peer(await self._pool.get(url), self.identity)

    async def aclose(self) -> None:
        """End all connections."""
        await self._pool.aclose()


@asynccontextmanager
async def acting(identity: SvidSource) -> AsyncIterator[Actor]:
    """Yield an actor, and end its connections on leaving."""
    actor = Actor(identity)
    try:
        yield actor
    finally:
        await actor.aclose()


async def status_of(call: Any) -> tuple[str, str]:
    """Await a call; return the name of its status and its text, ``OK`` and nothing where it succeeded."""
    try:
        await call
    except MeshError as error:
        return error.status.name, str(error)
    return Status.OK.name, ""


class Stream(Generic[T]):
    """What a stream says, as it comes. Made by :func:`following`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T | None] = asyncio.Queue()
        self.ended = ""
        """How the stream ended; empty while it is open."""

    async def read(self, stream: AsyncIterator[T]) -> None:
        """Read the stream to its end."""
        try:
            async for item in stream:
                self._queue.put_nowait(item)
            self.ended = Status.OK.name
        except MeshError as error:
            self.ended = f"{error.status.name}: {error}"
        self._queue.put_nowait(None)

    async def next(self, seconds: float = PATIENCE) -> T | None:
        """Return what comes next; None where nothing comes in time, or the stream is over."""
        try:
            async with asyncio.timeout(seconds):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def until(self, wanted: Callable[[T], bool], seconds: float = PATIENCE) -> T | None:
        """Return the next item that is wanted; None where none comes in time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            item = await self.next(left)
            if item is None or wanted(item):
                return item
        return None


@asynccontextmanager
async def following(stream: AsyncGenerator[T, None]) -> AsyncIterator[Stream[T]]:
    """Read a stream in the background while the block runs; its call is cancelled on leaving."""
    found: Stream[T] = Stream()
    async with Scope("stream") as scope:
        scope.spawn(found.read(stream), name="stream")
        yield found
