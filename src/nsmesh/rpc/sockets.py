"""What the kernel tells of a socket, and what it is told."""

from __future__ import annotations

import socket
import struct

from nsmesh.core.call import Peer
from nsmesh.core.process import start_ticks

UNHEARD = 5.0
"""Seconds without an acknowledgement after which a machine counts as gone."""
PROBE_AFTER, PROBE_EVERY = 4, 2
"""Seconds of silence before the kernel probes a machine, and between its probes."""
_CREDENTIALS = struct.Struct("3i")


def credentials(sock: socket.socket) -> Peer:
    """Return who is on the other side of a unix socket; nobody that the kernel knows where it is none."""
    if sock.family != socket.AF_UNIX:
        return Peer()
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return Peer(uid=uid, gid=gid, pid=pid)


def is_left(sock: socket.socket) -> bool:
    """Say whether the process is dead that listens, or listened last, on the other side of a unix socket.

    Of a listening one: whether that is dead which called listen(2) last.
    """
    pid = credentials(sock).pid
    return pid is not None and pid > 0 and start_ticks(pid) is None


def tune(sock: socket.socket) -> None:
    """Send small messages at once, and find out soon when the peer's machine has gone; for tcp.

    A Request that waits for a machine that is gone must have time left for another one: what is sent and not
    acknowledged ends the connection after :data:`UNHEARD`, and so does silence with its probes soon after.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNHEARD * 1e3))


def origin(sock: socket.socket) -> object:
    """Return where connections come from, to tell one origin of many from many: process, or host."""
    if sock.family == socket.AF_UNIX:
        peer = credentials(sock)
        return peer.uid, peer.pid
    return sock.getpeername()[0]


def name(sock: socket.socket) -> str:
    """Return what tells one client from another in a log."""
    if sock.family == socket.AF_UNIX:
        peer = credentials(sock)
        return f"process {peer.pid} of user {peer.uid}"
    host, port = sock.getpeername()[:2]
    return f"{host} port {port}"
