"""Both directions of descriptors on one connection, as elements use them (``nsmesh.core.passing``)."""

from __future__ import annotations

from collections.abc import Callable

from nsmesh.rpc.descriptors import PeerDescriptors


class Passage:
    """Satisfies :class:`nsmesh.core.passing.Passing`."""

    __slots__ = ("_received", "send")

    def __init__(self, send: Callable[[str], str], received: PeerDescriptors) -> None:
        self.send = send
        self._received = received

    async def take(self, dev: int, ino: int, deadline: float | None) -> int:
        """See :meth:`nsmesh.rpc.descriptors.PeerDescriptors.wait`."""
        return await self._received.wait(dev, ino, deadline)

    def expected(self, dev: int, ino: int) -> None:
        """See :meth:`nsmesh.rpc.descriptors.PeerDescriptors.expected`."""
        self._received.expected(dev, ino)
