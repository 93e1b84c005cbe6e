"""What a component serves: the methods of the wire contract, bound to handlers.

The only place where messages become bytes on the way out of a server, and the reverse.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from nsmesh import rpc
from nsmesh.api import health_pb2
from nsmesh.core.call import Call
from nsmesh.core.element import Handler
from nsmesh.core.errors import Exhausted, Invalid, NotFound
from nsmesh.core.logging import of_request
from nsmesh.core.passing import PASSING
from nsmesh.model import methods
from nsmesh.model.messages import (
    Connection,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
    NetworkServiceRequest,
)
from nsmesh.security.privacy import visible_to
from nsmesh.security.token import TokenReader

Methods = dict[str, rpc.Unary | rpc.ServerStream | rpc.Bidi]

_EMPTY = Empty().SerializeToString()


LARGEST = {
    NetworkServiceRequest: 256 << 10,
    Connection: 256 << 10,
    NetworkService: 1 << 20,
    NetworkServiceEndpoint: 256 << 10,
}
"""Bytes of what processes keep as long as its sender wants, and copy at each hop; real ones have 5 kB."""


def _parse(kind: Any, body: bytes) -> Any:
    largest = LARGEST.get(kind)
    if largest is not None and len(body) > largest:
        raise Exhausted(
            f"a {kind.DESCRIPTOR.full_name} of {len(body)} bytes is larger than the {largest} that are taken",
            remedy="look for a loop between services, or for labels that are none",
        )
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Invalid(f"the message is no {kind.DESCRIPTOR.full_name}: {error}") from error


def _call(server_call: rpc.ServerCall, deadline: float | None = None) -> Call:
    """Return what the chain gets to know of a call; ``deadline`` where it is not the caller's own."""
    peer = server_call.peer
    of_request(peer.spiffe_id or ("" if peer.uid is None else f"user {peer.uid}"))
    passing = server_call.passing
    return Call(
        deadline=server_call.deadline if deadline is None else deadline,
        peer=peer,
        metadata=server_call.metadata,
        reply=server_call.reply,
        values={PASSING: passing} if passing is not None else {},
    )


MARGIN, MARGIN_SHARE = 0.5, 0.04
"""Seconds, and share of the time that is left, which a hop keeps of a Request's deadline."""


def _earlier(deadline: float | None) -> float | None:
    """Return the deadline of a Request for what is behind us, loop time.

    A little earlier: who is silent there has to be named to the caller before the caller gives up, for it
    would only know that we were.
    """
    if deadline is None:
        return None
    left = deadline - asyncio.get_running_loop().time()
    return deadline - min(MARGIN, max(left, 0.0) * MARGIN_SHARE)


def connections(handler: Handler, reader: TokenReader | None = None) -> Methods:
    """Return NetworkService and MonitorConnection, served by ``handler``.

    With a ``reader`` of tokens, monitors see those of their own paths only.
    """

    async def request(call: rpc.ServerCall, body: bytes) -> bytes:
        made = _call(call, _earlier(call.deadline))
        connection = await handler.request(made, _parse(NetworkServiceRequest, body))
        return connection.SerializeToString()

    async def close(call: rpc.ServerCall, body: bytes) -> bytes:
        await handler.close(_call(call), _parse(Connection, body))
        return _EMPTY

    async def monitor(call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:
        async for event in handler.monitor(_call(call), _parse(MonitorScopeSelector, body)):
            shown = event if reader is None else visible_to(event, call.peer, reader)
            yield shown.SerializeToString()

    return {
        methods.REQUEST: rpc.Unary(request),
        methods.CLOSE: rpc.Unary(close),
        methods.MONITOR: rpc.ServerStream(monitor),
    }


def _registry(
    handler: Handler, entry: type[Message], query: type[Message], paths: tuple[str, str, str]
) -> Methods:
    async def register(call: rpc.ServerCall, body: bytes) -> bytes:
        stored = await handler.register(_call(call), _parse(entry, body))
        return stored.SerializeToString()

    async def find(call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:
        async for found in handler.find(_call(call), _parse(query, body)):
            yield found.SerializeToString()

    async def unregister(call: rpc.ServerCall, body: bytes) -> bytes:
        await handler.unregister(_call(call), _parse(entry, body))
        return _EMPTY

    return {
        paths[0]: rpc.Unary(register),
        paths[1]: rpc.ServerStream(find),
        paths[2]: rpc.Unary(unregister),
    }


def registry(handler: Handler) -> Methods:
    """Return both registries, served by ``handler``, which tells them apart by message type."""
    return {
        **_registry(
            handler,
            NetworkService,
            NetworkServiceQuery,
            (methods.SERVICE_REGISTER, methods.SERVICE_FIND, methods.SERVICE_UNREGISTER),
        ),
        **_registry(
            handler,
            NetworkServiceEndpoint,
            NetworkServiceEndpointQuery,
            (methods.ENDPOINT_REGISTER, methods.ENDPOINT_FIND, methods.ENDPOINT_UNREGISTER),
        ),
    }


def health(served: Mapping[str, Any]) -> Methods:
    """Return gRPC's health service: "" and every service of the ``served`` methods are SERVING."""
    names = {""} | {path.split("/")[1] for path in served}
    serving = health_pb2.HealthCheckResponse(
        status=health_pb2.HealthCheckResponse.SERVING
    ).SerializeToString()
    unknown = health_pb2.HealthCheckResponse(
        status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    ).SerializeToString()

    async def check(call: rpc.ServerCall, body: bytes) -> bytes:  # noqa: ARG001 - the face of a method
        name = _parse(health_pb2.HealthCheckRequest, body).service
        if name not in names:
            raise NotFound("unknown service")
        return serving

    async def watch(call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:  # noqa: ARG001 - likewise
        name = _parse(health_pb2.HealthCheckRequest, body).service
        yield serving if name in names else unknown
        await asyncio.get_running_loop().create_future()  # nothing changes; the stream stays open

    return {methods.HEALTH_CHECK: rpc.Unary(check), methods.HEALTH_WATCH: rpc.ServerStream(watch)}
