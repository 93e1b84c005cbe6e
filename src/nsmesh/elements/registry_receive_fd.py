"""RegistryReceiveFd: endpoints' sockets, as the descriptors that came with registrations and findings."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Handler
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.core.holding import Holding
from nsmesh.core.passing import PASSING, Passing, passing_at
from nsmesh.core.peering import DIALLED, closing
from nsmesh.core.scope import Timer
from nsmesh.model.fileurl import Inode, inode_of, means_its_reader, socket_path, socket_url
from nsmesh.model.messages import (
    Entry,
    Found,
    NetworkServiceEndpoint,
    NetworkServiceEndpointResponse,
    Query,
)
from nsmesh.rpc.file_kind import SOCKET
from nsmesh.rpc.files import HELD, Files
from nsmesh.rpc.receiver import Receiver, parsed

log = structlog.get_logger()

WAIT = 5.0
"""Seconds that a watch waits for the socket of one of the endpoints that it tells of."""
LEASE = 60.0
"""Seconds that a found socket is held without being found again: enough to dial it."""


class RegistryReceiveFd(Holding[Receiver]):
    """The server half: an endpoint that registers by inode is known by a path that can be dialled.

    Its answer has the inode again. What is known for an endpoint's name needs no new descriptor.

    After:  Begin, Expire
    Reads:  PASSING
    Writes: URL of the endpoint: ``unix:///proc/PID/fd/N``; back in the answer
    Leaves: the socket, per endpoint; a Register that fails leaves what was there before
    Close:  Unregister lets go of it once it has succeeded
    """

    after = ("Begin", "Expire", "RegistryAuthorize")

    def __init__(self, files: Files = HELD) -> None:
        super().__init__(Receiver(files))

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Receive, pass on, name as before."""
        if not isinstance(entry, NetworkServiceEndpoint):
            return await next.register(call, entry)
        name, given = entry.name, entry.url
        inode = parsed(given)
        if inode is None:
            _refuse_sockets_of_ours(call, entry)
            answer = await next.register(call, entry)
            self._held.settle(name, ())
            return answer
        new = self._held.known(name, inode) is None
        path = await _receive(self._held, name, inode, call.get(PASSING), call.deadline)
        entry.url = socket_url(path)
        try:
            answer = await next.register(call, entry)
        except BaseException:
            if new:
                self._held.drop(name, inode)
            raise
        if isinstance(answer, NetworkServiceEndpoint) and answer.url == socket_url(path):
            answer.url = given
        self._held.settle(name, {inode})
        return answer

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Pass on with the known path, then let go; nothing is waited for."""
        if not isinstance(entry, NetworkServiceEndpoint):
            await next.unregister(call, entry)
            return
        name = entry.name
        inode = parsed(entry.url)
        path = self._held.known(name, inode) if inode is not None else None
        if path is not None:
            entry.url = socket_url(path)
        await next.unregister(call, entry)
        self._held.release(name)


class RegistryReceiveFdClient(Holding[Receiver]):
    """The client half: what a Find answers by inode becomes a path that can be dialled here.

    After:  Dial
    Reads:  DIALLED
    Writes: URLs of the endpoints found
    Leaves: the sockets, by endpoint name: what a watch tells of until it tells otherwise or ends, the rest
            for :data:`LEASE` after it was last found. Who goes there holds on to it (HoldSocket)
    """

    after = ("Dial",)

    def __init__(self, files: Files = HELD) -> None:
        super().__init__(Receiver(files))
        self._leases: dict[str, Timer] = {}
        self._watches = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Let go of everything on leaving (the scope ends the timers)."""
        async with super().running():
            try:
                yield self
            finally:
                self._leases.clear()

    async def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Pass on, receive."""
        passing = passing_at(call.get(DIALLED))
        watch = f"watch {self._number()}: " if query.watch else ""
        told: set[str] = set()
        try:
            async with closing(next.find(call, query)) as found:
                async for item in found:
                    if passing is not None and isinstance(item, NetworkServiceEndpointResponse):
                        name = watch + item.network_service_endpoint.name
                        told.add(name)
                        if watch:
                            await self._receive_told(name, item, passing)
                        else:
                            await self._receive(call.deadline, name, item, passing)
                    yield item
        finally:
            if watch:
                for name in told:
                    self._held.release(name)

    async def _receive_told(self, name: str, item: NetworkServiceEndpointResponse, passing: Passing) -> None:
        """Receive for a watch, which tells of others too: one that does not come must not hold them up."""
        try:
            await self._receive(self.scope.clock.monotonic() + WAIT, name, item, passing)
        except MeshError as error:
            log.warning("socket of an endpoint not received", name=name, error=str(error))

    async def _receive(
        self, deadline: float | None, name: str, item: NetworkServiceEndpointResponse, passing: Passing
    ) -> None:
        endpoint = item.network_service_endpoint
        inode = None if item.deleted else _inode_found(endpoint.url)
        if inode is None:
            self._held.release(name)
            return
        path = await _receive(self._held, name, inode, passing, deadline)
        endpoint.url = socket_url(path)
        self._held.settle(name, {inode})
        if name == endpoint.name:
            self._lend(name)

    def _number(self) -> int:
        self._watches += 1
        return self._watches

    def _lend(self, name: str) -> None:
        before = self._leases.pop(name, None)
        if before is not None:
            before.cancel()
        self._leases[name] = self.scope.after(LEASE, lambda: self._over(name))

    def _over(self, name: str) -> None:
        self._leases.pop(name, None)
        self._held.release(name)


async def _receive(
    receiver: Receiver, name: str, inode: Inode, passing: Passing | None, deadline: float | None
) -> str:
    return await receiver.receive(
        name, inode, passing, deadline, kinds=(SOCKET,), what=f"the socket of endpoint {name}"
    )


def _inode_found(url: str) -> Inode | None:
    """Return the inode in a URL that was found; one that cannot be read is told when it is dialled."""
    try:
        return inode_of(url)
    except ValueError:
        return None


def _refuse_sockets_of_ours(call: Call, endpoint: NetworkServiceEndpoint) -> None:
    path = None if call.peer.in_process else socket_path(endpoint.url)
    if path is not None and (means_its_reader(path) or path.startswith(f"/proc/{os.getpid()}/")):
        raise Invalid(
            f"{endpoint.url} of endpoint {endpoint.name} would mean a socket of this process",
            remedy="pass a descriptor over a unix socket, or register the path of a shared folder",
        )
