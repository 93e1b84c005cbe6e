"""ReceiveFd: network namespaces and sockets that mechanisms name, as the descriptors that came for them."""

from __future__ import annotations

import os
from collections.abc import Collection

from nsmesh.core.call import Call, State
from nsmesh.core.element import Handler
from nsmesh.core.errors import Invalid
from nsmesh.core.holding import Holding
from nsmesh.core.passing import PASSING, passing_at
from nsmesh.core.peering import NEXT_HOP, peer_of
from nsmesh.model.fileurl import INODE_URL, Inode, file_path, file_url, means_its_reader, naming
from nsmesh.model.messages import KERNEL, Connection, Mechanism, NetworkServiceRequest
from nsmesh.rpc.file_kind import NAMESPACE, SOCKET
from nsmesh.rpc.files import HELD, Files
from nsmesh.rpc.receiver import Receiver, parsed


def _refuse_paths_of_ours(url: str, whose: str) -> None:
    """Raise Invalid where another process names a file by a path that means something else here."""
    path = file_path(url)
    if path is not None and (means_its_reader(path) or path.startswith(f"/proc/{os.getpid()}/")):
        raise Invalid(
            f"{url} of {whose} would mean a namespace of this process",
            remedy="pass a descriptor over a unix socket, or a path such as /run/netns/NAME",
        )


class _Receives(Holding[Receiver]):
    """What both halves share: a receiver, and what to expect from a mechanism."""

    def __init__(self, files: Files = HELD) -> None:
        super().__init__(Receiver(files))

    def keeps(self) -> Collection[str]:
        """Return whose files are held."""
        return self._held.names

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Let go of its files."""
        self._held.release(connection_id)

    def _share(self, connection_id: str, url: str) -> Inode | None:
        path = file_path(url)
        return self._held.share(connection_id, path) if path is not None else None


class ReceiveFd(_Receives):
    """The server half: what a Request names by inode reaches the elements behind as a path to be opened.

    What is known for a connection needs no new descriptor. The answer names each file as the caller did. A
    role of this process names files by paths; where one leads to a held file, that stays held for us too.

    After:  Begin, Timeout, Monitor, SendFd
    Reads:  PASSING
    Writes: ``inodeURL`` of preferences and mechanism: ``file:///proc/PID/fd/N``; back in the answer
    Leaves: the files, per connection
    Close:  with such paths as far as they are known; then lets go of the files
    """

    after = ("Begin", "Authorize", "Timeout", "Monitor", "SendFd")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Receive, pass on, name as before."""
        connection_id = request.connection.id
        named: dict[str, str] = {}
        inodes: set[Inode] = set()
        for mechanism in naming(request):
            given = mechanism.parameters[INODE_URL]
            inode = await self._receive(call, connection_id, mechanism)
            named[mechanism.parameters[INODE_URL]] = given
            if inode is not None:
                inodes.add(inode)
        answer = await next.request(call, request)
        if named and answer.HasField("mechanism"):
            url = answer.mechanism.parameters.get(INODE_URL, "")
            if url in named:
                answer.mechanism.parameters[INODE_URL] = named[url]
        self._held.settle(connection_id, inodes)
        return answer

    async def _receive(self, call: Call, connection_id: str, mechanism: Mechanism) -> Inode | None:
        """Put a path into a mechanism; return the inode of the file that is held."""
        url = mechanism.parameters[INODE_URL]
        inode = parsed(url)
        if inode is not None:
            path = await self._held.receive(
                connection_id,
                inode,
                call.get(PASSING),
                call.deadline,
                kinds=_kinds(mechanism),
                what=f"the {mechanism.type} mechanism of connection {connection_id}",
            )
            mechanism.parameters[INODE_URL] = file_url(path)
            return inode
        if call.peer.in_process:
            return self._share(connection_id, url)
        _refuse_paths_of_ours(url, f"connection {connection_id}")
        return None

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on with known paths, then let go; nothing is waited for."""
        if connection.HasField("mechanism"):
            parameters = connection.mechanism.parameters
            inode = parsed(parameters.get(INODE_URL, ""))
            path = self._held.known(connection.id, inode) if inode is not None else None
            if path is not None:
                parameters[INODE_URL] = file_url(path)
        try:
            await next.close(call, connection)
        finally:
            self._held.release(connection.id)


class ReceiveFdClient(_Receives):
    """The client half: what an answer names by inode becomes a path that can be opened here.

    Stands in front of Dial, so that a connection which moves keeps its old files until it has moved.

    After:  Begin
    Reads:  NEXT_HOP
    Writes: ``inodeURL`` of the answer's mechanism
    Leaves: the files, per connection
    Close:  passes on, then lets go of the files
    """

    after = ("Begin", "BeginClient")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, receive."""
        connection_id = request.connection.id
        offered = {mechanism.parameters[INODE_URL] for mechanism in naming(request)}
        answer = await next.request(call, request)
        inode: Inode | None = None
        if answer.HasField("mechanism") and answer.mechanism.parameters.get(INODE_URL):
            inode = await self._receive(call, connection_id, answer.mechanism, offered)
        self._held.settle(connection_id, {inode} if inode is not None else ())
        return answer

    async def _receive(
        self, call: Call, connection_id: str, mechanism: Mechanism, offered: set[str]
    ) -> Inode | None:
        url = mechanism.parameters[INODE_URL]
        hop = call.state.get(NEXT_HOP)
        inode = parsed(url)
        if inode is not None:
            path = await self._held.receive(
                connection_id,
                inode,
                passing_at(hop),
                call.deadline,
                kinds=_kinds(mechanism),
                what=f"the {mechanism.type} mechanism that connection {connection_id} was answered with",
            )
            mechanism.parameters[INODE_URL] = file_url(path)
            return inode
        if url in offered or hop is None or peer_of(hop).in_process:
            return self._share(connection_id, url)
        _refuse_paths_of_ours(url, f"the answer for connection {connection_id}")
        return None

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then let go."""
        try:
            await next.close(call, connection)
        finally:
            self._held.release(connection.id)


def _kinds(mechanism: Mechanism) -> tuple[str, ...]:
    return (NAMESPACE,) if mechanism.type == KERNEL else (NAMESPACE, SOCKET)
