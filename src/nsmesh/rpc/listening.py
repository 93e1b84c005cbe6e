"""Listening at an address."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from nsmesh.core.errors import Conflict, Unavailable
from nsmesh.rpc.address import STREAM, Address, short

BACKLOG = 1024
"""Connections that may wait to be accepted."""


def listen(address: Address, mode: int) -> socket.socket:
    """Return a listening, non-blocking socket; a unix socket's file gets ``mode``.

    The file of a dead listener is replaced; raises Conflict where a live one is, Unavailable otherwise.
    """
    try:
        return _listen_unix(address, mode) if address.unix else _listen_tcp(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"cannot listen on {address.url}: it is in use",
                remedy="stop the other server or take another address",
            ) from error
        raise Unavailable(
            f"cannot listen on {address.url}: {os.strerror(error.errno or 0)}",
            remedy="check that the address belongs to this machine and that you may use it",
        ) from error


def _listen_unix(address: Address, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, STREAM)
    try:
        if not address.abstract:
            _remove_stale(address)
            os.fchmod(sock.fileno(), mode)  # before bind, so that the file never has a wider mode
        with short(address.path, parent=True) as path:
            sock.bind(path)
            if not address.abstract:
                Path(path).chmod(mode)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(address: Address) -> None:
    """Unlink the socket file that a dead listener left; raises Conflict when it lives or is no socket."""
    try:
        found = Path(address.path).stat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(
            f"cannot listen on {address.url}: a file that is no socket is in the way",
            remedy="choose another path",
        )
    with socket.socket(socket.AF_UNIX, STREAM) as probe:
        try:
            with short(address.path, parent=False) as path:
                probe.connect(path)
        except ConnectionRefusedError:
            Path(address.path).unlink()
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # a full backlog belongs to a live listener
    raise Conflict(
        f"cannot listen on {address.url}: a live server is there already",
        remedy="stop it first, or choose another path",
    )


def _listen_tcp(address: Address) -> socket.socket:
    """Listen on one host, or, without a host, on all addresses of both families."""
    host = address.host
    if host:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, target = found[0][0], found[0][4]
    else:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        target = ("::" if dual else "0.0.0.0", address.port)  # noqa: S104 - asked for by a URL without host
    sock = socket.socket(family, STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host)))
        sock.bind(target)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def listening_url(address: Address, sock: socket.socket) -> str:
    """Return the URL under which ``sock`` is reached: the given one, with the port that the kernel chose."""
    if address.unix or address.port:
        return address.url
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"tcp://{host}:{sock.getsockname()[1]}"
