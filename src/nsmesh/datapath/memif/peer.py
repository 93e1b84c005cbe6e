"""A memif peer on a socket: it speaks, and hands frames to a function that may answer them."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from nsmesh.core.errors import Conflict, Invalid, MeshError, Unavailable
from nsmesh.datapath.memif.conversation import Client, Conversation, Sent, Server
from nsmesh.datapath.memif.messages import SIZE, Disconnect, ProtocolError, decode, encode
from nsmesh.model.sockets import socket_problem

log = structlog.get_logger()

Answer = Callable[[bytes], bytes | None]
"""Takes a frame, and returns what to answer or None."""
_HELD = 16
"""Wires of one socket at a time: who comes beyond is sent away."""


class Peer:
    """One wire. ``answer`` is called for each frame; ``ended`` once, when the wire is over.

    What the peer does wrong ends this wire alone. Runs in the loop's own callbacks, with no task of its own.
    """

    def __init__(
        self,
        sock: socket.socket,
        conversation: Conversation,
        answer: Answer,
        ended: Callable[[Peer], None] = lambda _: None,
    ) -> None:
        self._sock = sock
        self._conversation = conversation
        self._answer = answer
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._watched: int | None = None
        self.reason = ""
        """Why the wire is over; empty while it is not."""
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        sock.setblocking(False)  # noqa: FBT003 - the library's own face
        self._loop.add_reader(sock, self._guarded, self._listen)
        self._guarded(lambda: self._say(conversation.start()))

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames; return how many there was room for: the rest is lost, as on a full wire."""
        sent = 0

        def give() -> None:
            nonlocal sent
            sent = self._give(frames)

        self._guarded(give)
        return sent

    def close(self, reason: str = "closed") -> None:
        """End the wire and tell the peer why; may be called again."""
        if self.reason:
            return
        self.reason = reason
        self._loop.remove_reader(self._sock)
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None
        with contextlib.suppress(OSError):
            self._sock.send(encode(Disconnect(reason)))
        self._sock.close()
        self._conversation.close()
        self.closed.set()
        self._ended(self)

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.reason:
            return
        try:
            work()
        except (ProtocolError, OSError) as error:
            log.debug("a memif wire ends", reason=str(error))
            self.close(str(error))

    def _listen(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(SIZE + 1, socket.CMSG_SPACE(4))
        except BlockingIOError:
            return
        descriptors = _descriptors(ancillary)
        if not data or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or len(descriptors) > 1:
            for unwanted in descriptors:
                os.close(unwanted)
            raise ProtocolError("the peer is gone" if not data else "more than one message may carry")
        descriptor = descriptors[0] if descriptors else None
        try:
            message = decode(data)
        except ProtocolError:
            if descriptor is not None:
                os.close(descriptor)
            raise
        self._say(self._conversation.receive(message, descriptor))
        if self._conversation.ready and not self.connected.is_set():
            self.connected.set()
            kicked = self._conversation.kicked
            assert kicked is not None
            self._watched = kicked
            self._loop.add_reader(kicked, self._guarded, self._frames)
            self._frames()

    def _say(self, messages: list[Sent]) -> None:
        for message, descriptor in messages:
            rights = [] if descriptor is None else [_rights(descriptor)]
            self._sock.sendmsg([encode(message)], rights)

    def _frames(self) -> None:
        talk = self._conversation
        if talk.incoming is None or talk.kicked is None:
            return
        with contextlib.suppress(BlockingIOError):
            # RWF_NOWAIT: the peer may have read it before us, and have made it one that blocks
            os.preadv(talk.kicked, [bytearray(8)], -1, os.RWF_NOWAIT)
        frames = talk.incoming.take(owned=talk.owned, buffers=talk.buffers_in)
        answers = [answer for frame in frames if (answer := self._answer(frame)) is not None]
        if answers:
            self._give(answers)

    def _give(self, frames: Sequence[bytes]) -> int:
        talk = self._conversation
        if not talk.ready or talk.outgoing is None or talk.kick is None:
            return 0
        sent = talk.outgoing.give(frames, owned=talk.owned, buffers=talk.buffers_out)
        if sent and talk.outgoing.wants_interrupts and _has_room(talk.kick):
            os.set_blocking(talk.kick, False)
            with contextlib.suppress(BlockingIOError):
                os.write(talk.kick, (1).to_bytes(8, "little"))
        return sent


class Listener:
    """A socket at which memif clients come and go; each is a wire of its own with ``answer``."""

    def __init__(self, sock: socket.socket, answer: Answer, *, path: str = "") -> None:
        self._sock = sock
        self._answer = answer
        self._path = path
        self._loop = asyncio.get_running_loop()
        self.peers: set[Peer] = set()
        self._loop.add_reader(sock, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return  # it went away again
        if len(self.peers) >= _HELD:
            sock.close()
            return
        peer = Peer(sock, Server(), self._answer, self.peers.discard)
        if not peer.reason:
            self.peers.add(peer)

    def close(self) -> None:
        """End all wires, and take the socket's file away."""
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for peer in list(self.peers):
            peer.close()
        if self._path:
            Path(self._path).unlink(missing_ok=True)


def listen(name: str, answer: Answer) -> Listener:
    """Listen at a path, or at ``@NAME`` in this thread's network namespace.

    Raises Invalid for a name that is too long or has no folder, Conflict where somebody listens there.
    """
    sock = _socket(name)
    try:
        sock.bind(_address(name))
        sock.listen(_HELD)
    except OSError as error:
        sock.close()
        raise _explained(error, f"cannot listen for memif peers at {name}") from error
    return Listener(sock, answer, path="" if name.startswith("@") else name)


def connect(name: str, answer: Answer, *, number: int = 0) -> Peer:
    """Connect to whoever listens at a path or ``@NAME``; wait for ``connected`` before you send.

    Raises Unavailable where nobody does, and Invalid for a name that cannot be one.
    """
    sock = _socket(name)
    try:
        sock.connect(_address(name))
    except OSError as error:
        sock.close()
        raise _explained(error, f"cannot connect to the memif socket {name}") from error
    return Peer(sock, Client(number), answer)


def abandoned(name: str) -> bool:
    """Return whether a path is a socket at which nobody listens any more."""
    with _socket(name) as sock:
        try:
            sock.connect(_address(name))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _socket(name: str) -> socket.socket:
    problem = socket_problem(name)
    if problem:
        raise Invalid(problem, remedy="choose a shorter path, such as one below /run")
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def _address(name: str) -> str:
    return "\0" + name[1:] if name.startswith("@") else name


def _explained(error: OSError, what: str) -> MeshError:
    text = f"{what}: {error.strerror}"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError | BlockingIOError):
        return Unavailable(text, remedy="start what listens there, or make the socket's folder")
    return Conflict(text, remedy="take away the socket of whoever was there before, or choose another")


def _rights(descriptor: int) -> tuple[int, int, array.array[int]]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor])


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _has_room(descriptor: int) -> bool:
    """Whether a write would not wait: a peer may fill the counter and make the descriptor one that blocks."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
