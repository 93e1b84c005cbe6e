"""The byte transport: owns a non-blocking socket, with TLS above it and descriptors beside it."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from nsmesh.core.call import Peer
from nsmesh.core.errors import MeshError
from nsmesh.rpc import endings, foreign, sockets, telling
from nsmesh.rpc.descriptors import Descriptors
from nsmesh.rpc.limits import Limits
from nsmesh.rpc.outbox import Outbox
from nsmesh.rpc.stall import Stall
from nsmesh.rpc.tls import Tls

AT_ONCE = 65536
"""Bytes read per call."""

LINGER = 1.0
"""Seconds that a closing connection waits for its last bytes to be taken."""


class User(Protocol):
    """Who reads and writes a wire."""

    def opened(self) -> None:
        """Hear that TLS, where there is any, is done: the peer is known and bytes may be written."""
        ...

    def received(self, data: bytes) -> None:
        """Take bytes."""
        ...

    def writable(self) -> None:
        """Hear that the socket has taken all that waited."""
        ...

    def lost(self, reason: MeshError) -> None:
        """Hear, once, that the connection is over."""
        ...


class Wire:
    """One connection. ``where`` names the other side in errors; ``tls`` is None for plaintext.

    ``peer``: who is on the other side, as far as it is known. ``dead``: nothing is written or read any more.
    ``heard``: whether it has said anything. ``buffered``: bytes that the socket has not taken yet.
    """

    def __init__(
        self,
        sock: socket.socket,
        user: User,
        *,
        where: str,
        limits: Limits,
        descriptors: Descriptors,
        tls: Tls | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._fileno = sock.fileno()
        self._user = user
        self._limits = limits
        self._descriptors = descriptors
        self._tls = tls
        self._outbox = Outbox(sock, where)
        self._timer: asyncio.TimerHandle | None = None
        self._stall: Stall | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.where = where
        self.dead = False
        self.heard = False
        self.buffered = 0
        self.unix = sock.family == socket.AF_UNIX
        self.peer = sockets.credentials(sock)
        self._source = descriptors.source(self.peer, limits.descriptors)
        if not self.unix:
            sockets.tune(sock)

    def start(self) -> None:
        """Begin: handshake first where there is TLS, else ``opened`` at once."""
        self._timer = self._loop.call_later(self._limits.handshake, self._too_slow)
        self._loop.add_reader(self._fileno, self._readable)
        if self._tls is None:
            self._user.opened()
        else:
            self._handshake(self._tls)

    def established(self) -> None:
        """Hear from the user that its own handshake is done too: the time for it no longer runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self.abort(endings.too_slow(self.where, self._limits.handshake))

    def _handshake(self, tls: Tls) -> None:
        try:
            done = tls.handshake(self.where)
        except MeshError as error:
            self._send(tls.take())  # the alert that tells the peer why
            self.end(error)
            return
        self._send(tls.take())
        if done and not self.dead:
            mine = self.peer
            self.peer = Peer(tls.spiffe_id, tls.certificate, mine.uid, mine.gid, mine.pid, shown=tls.shown)
            self._source = self._descriptors.source(self.peer, self._limits.descriptors)
            self._user.opened()

    def _readable(self) -> None:
        try:
            if self.unix:
                data, ancillary, _, _ = self._socket.recvmsg(AT_ONCE, foreign.ROOM, socket.MSG_CMSG_CLOEXEC)
                if ancillary:
                    self._take_descriptors(ancillary)
            else:
                data = self._socket.recv(AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._broken(error)
            return
        self.heard = self.heard or bool(data)
        if self.dead:
            if not data:
                self._drop()
        elif not data:
            self.abort(endings.closed(self.where))
        elif self._tls is None:
            self._user.received(data)
        else:
            self._decrypt(self._tls, data)

    def _decrypt(self, tls: Tls, data: bytes) -> None:
        tls.put(data)
        if not tls.done:
            self._handshake(tls)
            if not tls.done or self.dead:
                return
        try:
            plain, ended = tls.read(self.where)
        except MeshError as error:
            self.abort(error)
            return
        if words := tls.take():
            self._send(words)
        if plain and not self.dead:
            self._user.received(plain)
        if ended:
            self.abort(endings.closed(self.where))

    def _take_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        wanted = not self.dead and (self._tls is None or self._tls.done)  # else: from nobody that we know
        strange = False
        for number in foreign.numbers_in(ancillary):
            if not wanted:
                foreign.discard(number)
            elif foreign.harmless(number):
                self._descriptors.arrived(number, self._source)
            else:
                strange = True
                foreign.discard(number)
        if strange:
            self.refuse(endings.strange_descriptor(self.where))

    def send_fd(self, path: str) -> str:
        """Queue a descriptor of the file at ``path``, links followed, for the next bytes.

        Returns the ``inode://`` URL by which the message names it. Raises Invalid on tcp, NotFound,
        Unauthorized, Exhausted, Unavailable.
        """
        if self.dead:
            raise endings.closed(self.where)
        return self._outbox.add_descriptor(path)

    def write(self, data: bytes) -> None:
        """Send ``data`` now, or as soon as the socket takes it."""
        if self.dead:
            return
        if self._tls is not None:
            try:
                data = self._tls.wrap(data)
            except MeshError as error:
                self.abort(error)
                return
        self._send(data)

    def _send(self, data: bytes) -> None:
        if not data:
            return
        waiting = self.buffered
        try:
            left = self.buffered = self._outbox.send(data)
        except OSError as error:
            self._broken(error)
            return
        if left and not waiting:
            self._loop.add_writer(self._fileno, self._resume)
            self._stall = Stall(self._loop, self._limits.stall, self._stalled)

    def _resume(self) -> None:
        waiting = self.buffered
        try:
            left = self.buffered = self._outbox.resume()
        except OSError as error:
            self._broken(error)
            return
        if self._stall is not None and left < waiting:
            self._stall.moved()
        if left:
            return
        self._loop.remove_writer(self._fileno)
        self._no_stall()
        if self.dead:
            self._half_close()
        else:
            self._user.writable()

    def _no_stall(self) -> None:
        if self._stall is not None:
            self._stall.stop()
            self._stall = None

    def _stalled(self) -> None:
        """End where the socket has taken nothing for too long: a peer of good will always reads it."""
        self.refuse(endings.stalled(self.where, self._limits.stall, self.buffered))

    def refuse(self, reason: MeshError) -> None:
        """End at once, and say why in the log: the peer is at fault."""
        if not self.dead:
            who = telling.name_of(self.peer)
            telling.SHARED.warn("refused a peer", about=who, peer=who, reason=str(reason))
        self.abort(reason)

    def _broken(self, error: OSError) -> None:
        """End after the socket failed."""
        if self.dead:
            self._drop()
        else:
            self.abort(endings.broken(self.where, error))

    def close(self) -> None:
        """End in order, with TLS's farewell: what was written still goes out, within a second."""
        if self.dead:
            return
        if self._tls is not None and self._tls.done:
            self._send(self._tls.close())
        self.end(endings.closed_here(self.where))

    def end(self, reason: MeshError) -> None:
        """End in order; ``reason`` is what the user hears."""
        if self.dead:
            return
        self._die()
        self._timer = self._loop.call_later(LINGER, self._drop)
        if not self.buffered:
            self._half_close()
        self._user.lost(reason)

    def _half_close(self) -> None:
        """Tell the peer that nothing more comes, and wait for the same: closing at once could lose bytes."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop()

    def abort(self, reason: MeshError) -> None:
        """End at once; ``reason`` is what the user hears."""
        if self.dead:
            return
        self._die()
        self._drop()
        self._user.lost(reason)

    def _die(self) -> None:
        self.established()
        self.dead = True
        self._outbox.drop_descriptors()

    def _drop(self) -> None:
        """Close the socket."""
        self.established()
        if self._gone.done():
            return
        self._gone.set_result(None)
        self._loop.remove_reader(self._fileno)
        self._loop.remove_writer(self._fileno)
        self._no_stall()
        self._outbox.clear()
        self.buffered = 0
        foreign.close_socket(self._socket)

    async def gone(self) -> None:
        """Wait until the socket is closed; a second at most after ``close``."""
        await asyncio.shield(self._gone)
