"""The byte transport: owns a non-blocking socket, with TLS above it and descriptors beside it."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
import struct
from typing import Protocol

import structlog

from nsmesh.core.call import Peer
from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.rpc.descriptors import Descriptors
from nsmesh.rpc.limits import Limits
from nsmesh.rpc.outbox import DESCRIPTORS_AT_ONCE, Outbox
from nsmesh.rpc.tls import Tls

log = structlog.get_logger()

AT_ONCE = 65536
"""Bytes read per call."""

ROOM = socket.CMSG_SPACE(DESCRIPTORS_AT_ONCE * 4)

LINGER = 1.0
"""Seconds that a closing connection waits for its last bytes to be taken."""

_CREDENTIALS = struct.Struct("3i")
_GONE = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


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
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.where = where
        self.dead = False
        self.unix = sock.family == socket.AF_UNIX
        self.peer = _credentials(sock) if self.unix else Peer()
        self._source = descriptors.source(self.peer, limits.descriptors)
        if not self.unix:
            _tune(sock)

    @property
    def buffered(self) -> int:
        """Bytes that the socket has not taken yet."""
        return len(self._outbox)

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
        self.abort(
            Unavailable(
                f"{self.where} did not finish its handshake within {self._limits.handshake:g} s",
                remedy="check that it is a gRPC peer, and whether both sides use TLS",
            )
        )

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
            self.peer = Peer(tls.spiffe_id, tls.certificate, mine.uid, mine.gid, mine.pid)
            self._source = self._descriptors.source(self.peer, self._limits.descriptors)
            self._user.opened()

    def _readable(self) -> None:
        try:
            if self.unix:
                data, ancillary, _, _ = self._socket.recvmsg(AT_ONCE, ROOM, socket.MSG_CMSG_CLOEXEC)
                if ancillary:
                    self._take_descriptors(ancillary)
            else:
                data = self._socket.recv(AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._broken(error)
            return
        if self.dead:
            if not data:
                self._drop()
        elif not data:
            self.abort(self._closed())
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
        self._send(tls.take())
        if plain and not self.dead:
            self._user.received(plain)
        if ended:
            self.abort(self._closed())

    def _take_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, body in ancillary:
            if level != socket.SOL_SOCKET or kind != socket.SCM_RIGHTS:
                continue
            numbers = array.array("i")
            numbers.frombytes(body[: len(body) - len(body) % numbers.itemsize])
            for number in numbers:
                if self.dead or (self._tls is not None and not self._tls.done):
                    os.close(number)  # from nobody that we know
                else:
                    self._descriptors.arrived(number, self._source)

    def send_fd(self, path: str) -> str:
        """Queue a descriptor of the file at ``path``, links followed, for the next bytes.

        Returns the ``inode://`` URL by which the message names it. Raises Invalid on tcp, NotFound,
        Unauthorized, Exhausted, Unavailable.
        """
        if self.dead:
            raise self._closed()
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
        waiting = len(self._outbox)
        try:
            if not self._outbox.send(data) and not waiting:
                self._loop.add_writer(self._fileno, self._resume)
        except OSError as error:
            self._broken(error)

    def _resume(self) -> None:
        try:
            if not self._outbox.resume():
                return
        except OSError as error:
            self._broken(error)
            return
        self._loop.remove_writer(self._fileno)
        if self.dead:
            self._half_close()
        else:
            self._user.writable()

    def _closed(self) -> MeshError:
        return Unavailable(f"{self.where} closed the connection", remedy="try again, and read its log")

    def _broken(self, error: OSError) -> None:
        """End after the socket failed."""
        if self.dead:
            self._drop()
        elif error.errno in _GONE:
            self.abort(
                Unavailable(f"{self.where} broke the connection", remedy="try again, and read its log")
            )
        else:
            self.abort(
                Unavailable(f"the connection to {self.where} failed: {error.strerror}", remedy="try again")
            )

    def close(self) -> None:
        """End in order, with TLS's farewell: what was written still goes out, within a second."""
        if self.dead:
            return
        if self._tls is not None and self._tls.done:
            self._send(self._tls.close())
        self.end(Unavailable(f"the connection to {self.where} was closed", remedy="connect again"))

    def end(self, reason: MeshError) -> None:
        """End in order; ``reason`` is what the user hears."""
        if self.dead:
            return
        self._die()
        self._timer = self._loop.call_later(LINGER, self._drop)
        if not self._outbox:
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
        self._outbox.clear()
        self._socket.close()

    async def gone(self) -> None:
        """Wait until the socket is closed; a second at most after ``close``."""
        await asyncio.shield(self._gone)


def _credentials(sock: socket.socket) -> Peer:
    """Return who is on the other side of a unix socket."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return Peer(uid=uid, gid=gid, pid=pid)


def _tune(sock: socket.socket) -> None:
    """Send small messages at once, and find out when the peer's machine has gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
