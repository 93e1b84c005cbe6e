"""HoldSocket: a connection keeps the way to its next hop, where that is a descriptor that was received."""

from __future__ import annotations

from collections.abc import Collection

from nsmesh.core.call import Call, State
from nsmesh.core.element import Handler
from nsmesh.core.holding import Holding
from nsmesh.core.peering import TARGET
from nsmesh.model.fileurl import socket_path
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.rpc.files import HELD, Files
from nsmesh.rpc.receiver import Receiver


class HoldSocket(Holding[Receiver]):
    """Holds the socket behind TARGET for each connection: an entry of the registry may go before it does.

    So the URL of a next hop stays the same while any connection goes there, and its Close can be dialled.

    After:  Begin
    Reads:  TARGET
    Leaves: the socket's file, per connection
    Close:  passes on, then lets go
    """

    after = ("Begin", "BeginClient")

    def __init__(self, files: Files = HELD) -> None:
        super().__init__(Receiver(files))

    def keeps(self) -> Collection[str]:
        """Return whose sockets are held."""
        return self._held.names

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Let go of its files."""
        self._held.release(connection_id)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Hold, pass on, let go of the one before."""
        connection_id = request.connection.id
        target = call.get(TARGET)
        if not isinstance(target, str):
            return await next.request(call, request)
        path = socket_path(target)
        inode = self._held.share(connection_id, path) if path is not None else None
        answer = await next.request(call, request)
        self._held.settle(connection_id, {inode} if inode is not None else ())
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, let go."""
        try:
            await next.close(call, connection)
        finally:
            self._held.release(connection.id)
