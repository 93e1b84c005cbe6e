"""The byte transport: owns a non-blocking socket, with TLS above it and descriptors beside it."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
import struct
from collections import deque
from typing import Protocol

import structlog

from nsmesh.core.call import Peer
from nsmesh.core.errors import Exhausted, Invalid, MeshError, NotFound, Unauthorized, Unavailable
from nsmesh.rpc.descriptors import Descriptors, inode_url
from nsmesh.rpc.limits import Limits
from nsmesh.rpc.tls import Tls

log = structlog.get_logger()

AT_ONCE = 65536
"""Bytes read per call."""

DESCRIPTORS_AT_ONCE = 64
"""Descriptors taken per read and sent per write."""

ROOM = socket.CMSG_SPACE(DESCRIPTORS_AT_ONCE * 4)
MOST_PENDING = 1024
"""Descriptors that may wait to be sent on one connection."""

LINGER = 1.0
"""Seconds that a closing connection waits for its last bytes to be taken."""

_CREDENTIALS = struct.Struct("3i")
_GONE = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ETIMEDOUT)


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
    """One connection. ``where`` names the other side in errors."""

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
        self._sock = sock
        self._fileno = sock.fileno()
        self._user = user
        self._limits = limits
        self._descriptors = descriptors
        self._tls = tls
        self._rest = bytearray()
        self._pending: deque[int] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.where = where
        self.dead = False
        self.unix = sock.family == socket.AF_UNIX
        self.peer = Peer()
        self._source = descriptors.source(self.peer, limits.descriptors)
        self._closing = False
        if self.unix:
            size = _CREDENTIALS.size
            pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
            self.peer = Peer(uid=uid, gid=gid, pid=pid)
        else:
            _tune(sock)

    @property
    def buffered(self) -> int:
        """Bytes that the socket has not taken yet."""
        return len(self._rest)

    def start(self) -> None:
        """Begin: handshake first where there is TLS, else ``opened`` at once."""
        self._timer = self._loop.call_later(self._limits.handshake, self._too_slow)
        self._loop.add_reader(self._fileno, self._readable)
        if self._tls is None:
            self._known()
        else:
            self._handshake()

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

    def _known(self) -> None:
        self._source = self._descriptors.source(self.peer, self._limits.descriptors)
        self._user.opened()

    def _handshake(self) -> None:
        assert self._tls is not None
        try:
            done = self._tls.handshake(self.where)
        except MeshError as error:
            self._send(self._tls.take())  # the alert that tells the peer why
            self.abort(error)
            return
        self._send(self._tls.take())
        if done and not self.dead:
            mine, tls = self.peer, self._tls
            self.peer = Peer(tls.spiffe_id, tls.certificate, mine.uid, mine.gid, mine.pid)
            self._known()

    def _readable(self) -> None:
        try:
            if self.unix:
                data, ancillary, _, _ = self._sock.recvmsg(AT_ONCE, ROOM, socket.MSG_CMSG_CLOEXEC)
                if ancillary:
                    self._take_descriptors(ancillary)
            else:
                data = self._sock.recv(AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.abort(self._broken(error))
            return
        if self._closing:
            if not data:
                self._drop()
        elif not data:
            self.abort(Unavailable(f"{self.where} closed the connection", remedy="try again"))
        elif self._tls is None:
            self._user.received(data)
        else:
            self._decrypt(data)

    def _decrypt(self, data: bytes) -> None:
        tls = self._tls
        assert tls is not None
        tls.put(data)
        if not tls.done:
            self._handshake()
            if not tls.done or self.dead:
                return
        try:
            plain, ended = tls.read(self.where)
        except MeshError as error:
            self.abort(error)
            return
        said = tls.take()
        if said:
            self._send(said)
        if plain:
            self._user.received(plain)
        if ended:
            self.abort(Unavailable(f"{self.where} closed the connection", remedy="try again"))

    def _take_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, body in ancillary:
            if level != socket.SOL_SOCKET or kind != socket.SCM_RIGHTS:
                continue
            numbers = array.array("i")
            numbers.frombytes(body[: len(body) - len(body) % numbers.itemsize])
            for number in numbers:
                if self._closing or (self._tls is not None and not self._tls.done):
                    os.close(number)  # from nobody that we know
                else:
                    self._descriptors.arrived(number, self._source)

    def send_fd(self, path: str) -> str:
        """Queue a descriptor of the file at ``path``, links followed, for the next bytes.

        Returns the ``inode://`` URL by which the message names it. Raises Invalid on tcp, NotFound,
        Unauthorized, Exhausted.
        """
        if not self.unix:
            raise Invalid(
                f"a descriptor of {path} cannot go to {self.where}: only unix sockets carry descriptors",
                remedy="use a unix socket for this hop",
            )
        if len(self._pending) >= MOST_PENDING:
            raise Exhausted(
                f"{len(self._pending)} descriptors wait for {self.where}", remedy="wait for its answers"
            )
        try:
            number = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no file {path} to pass on", remedy="check that its owner lives"
            ) from error
        except OSError as error:
            raise Unauthorized(f"cannot open {path} to pass it on: {error.strerror}") from error
        found = os.fstat(number)
        self._pending.append(number)
        return inode_url(found.st_dev, found.st_ino)

    def write(self, data: bytes) -> None:
        """Send ``data`` now, or as soon as the socket takes it."""
        if self.dead:
            return
        if self._tls is not None:
            data = self._tls.wrap(data)
        self._send(data)

    def _send(self, data: bytes) -> None:
        if not data:
            return
        if self._rest:
            self._rest += data
            return
        try:
            sent = self._push(data)
        except OSError as error:
            self.abort(self._broken(error))
            return
        if sent < len(data):
            self._rest += memoryview(data)[sent:]
            self._loop.add_writer(self._fileno, self._flush)

    def _push(self, data: bytes | bytearray) -> int:
        """Give the socket what it takes of ``data``, one byte with each waiting descriptor first."""
        sent = 0
        try:
            while self._pending and sent < min(len(data) - 1, DESCRIPTORS_AT_ONCE):
                rights = array.array("i", [self._pending[0]])
                self._sock.sendmsg([data[sent : sent + 1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                os.close(self._pending.popleft())
                sent += 1
            if not sent:
                return self._sock.send(data)
            with memoryview(data) as view, view[sent:] as left:
                return sent + self._sock.send(left)
        except BlockingIOError:
            return sent

    def _flush(self) -> None:
        try:
            sent = self._push(self._rest)
        except OSError as error:
            if self._closing:
                self._drop()
            else:
                self.abort(self._broken(error))
            return
        del self._rest[:sent]
        if self._rest:
            return
        self._loop.remove_writer(self._fileno)
        if self._closing:
            self._half_close()
        else:
            self._user.writable()

    def _broken(self, error: OSError) -> MeshError:
        if error.errno in _GONE:
            return Unavailable(f"{self.where} broke the connection", remedy="try again")
        return Unavailable(f"the connection to {self.where} failed: {error.strerror}", remedy="try again")

    def close(self) -> None:
        """End in order: what was written still goes out, within a second."""
        if self.dead:
            return
        if self._tls is not None and self._tls.done:
            self._send(self._tls.close())
        if self.dead:
            return
        self._end()
        self._timer = self._loop.call_later(LINGER, self._drop)
        if not self._rest:
            self._half_close()
        self._user.lost(Unavailable(f"the connection to {self.where} was closed", remedy="connect again"))

    def _half_close(self) -> None:
        """Tell the peer that nothing more comes, and wait for the same: closing at once could lose bytes."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop()

    def abort(self, reason: MeshError) -> None:
        """End at once; ``reason`` is what the user hears."""
        if self.dead:
            return
        self._end()
        self._drop()
        self._user.lost(reason)

    def _end(self) -> None:
        self.established()
        self.dead = self._closing = True
        while self._pending:
            os.close(self._pending.popleft())

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._fileno)
        self._loop.remove_writer(self._fileno)
        self._rest.clear()
        self._sock.close()


def _tune(sock: socket.socket) -> None:
    """Send small messages at once, and find out when the peer's machine has gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
