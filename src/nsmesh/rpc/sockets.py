"""What the kernel tells of a socket, and what it is told."""

from __future__ import annotations

import socket
import struct

from nsmesh.core.call import Peer

_CREDENTIALS = struct.Struct("3i")


def credentials(sock: socket.socket) -> Peer:
    """Return who is on the other side of a unix socket; nobody that the kernel knows where it is none."""
    if sock.family != socket.AF_UNIX:
        return Peer()
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return Peer(uid=uid, gid=gid, pid=pid)


def tune(sock: socket.socket) -> None:
    """Send small messages at once, and find out when the peer's machine has gone; for tcp."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


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
