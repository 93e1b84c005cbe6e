"""What a server serves: the three kinds of methods, and what a handler gets to know of its call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from nsmesh.core.call import Peer
from nsmesh.rpc.descriptors import PeerDescriptors
from nsmesh.rpc.passage import Passage


@dataclass(slots=True)
class ServerCall:
    """One call, as its handler sees it.

    ``path``: ``/package.Service/Method``. ``metadata``: what came, in order, several values of a key kept
    apart; values of ``-bin`` keys are bytes as latin-1 characters. ``deadline``: loop time or None.
    ``peer``: who calls. ``reply``: initial metadata to send back, to be filled before the first answer.
    ``descriptors``: those that this peer has sent.
    """

    path: str
    metadata: tuple[tuple[str, str], ...]
    deadline: float | None
    peer: Peer
    descriptors: PeerDescriptors
    send: Callable[[str], str]
    reply: dict[str, str] = field(default_factory=dict)

    def send_fd(self, path: str) -> str:
        """Queue a descriptor of the file at ``path`` for the answer; return its ``inode://`` URL.

        Raises Invalid on tcp, NotFound, Unauthorized, Exhausted.
        """
        return self.send(path)

    @property
    def passing(self) -> Passage | None:
        """Both directions of descriptors, None on tcp."""
        return Passage(self.send, self.descriptors) if self.peer.pid is not None else None


@dataclass(frozen=True, slots=True)
class Unary:
    """One message in, one out."""

    handler: Callable[[ServerCall, bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ServerStream:
    """One message in, any number out."""

    handler: Callable[[ServerCall, bytes], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Bidi:
    """Any number in and out."""

    handler: Callable[[ServerCall, AsyncIterator[bytes]], AsyncIterator[bytes]]


Method = Unary | ServerStream | Bidi
