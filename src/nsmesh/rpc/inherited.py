"""Listening sockets that somebody else opened for this process: its supervisor, its predecessor, or systemd.

Who opened them holds them, so a connection that is made while nobody serves waits in the backlog, and is not
refused. The protocol is systemd's: descriptors from 3 on, ``LISTEN_FDS`` of them, for the process
``LISTEN_PID`` (sd_listen_fds(3)).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterable, MutableMapping

from nsmesh.core.errors import Invalid
from nsmesh.rpc.address import Address

FIRST = 3
"""The first descriptor that is passed (SD_LISTEN_FDS_START)."""
OURS = "NSM_PASSED_SOCKETS"
"""Variable with the descriptors that a mesh passes to a process of its own, whatever their numbers."""
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

_WAITING: list[socket.socket] = []
"""What was passed and nobody serves yet."""


def take_from_environment(environment: MutableMapping[str, str]) -> None:
    """Take the sockets that the environment speaks of, if they are for this process; its children get none.

    Raises Invalid where the variables cannot be read, or what they count is no listening socket.
    """
    if ours := environment.pop(OURS, ""):
        take(int(fd) for fd in ours.split(","))
    pid, count, _ = (environment.pop(name, "") for name in VARIABLES)
    if not count or (pid and pid != str(os.getpid())):
        return
    if not count.isdecimal():
        raise Invalid(
            f"LISTEN_FDS={count!r} is no number", remedy="leave LISTEN_FDS to whoever passes sockets"
        )
    take(range(FIRST, FIRST + int(count)))


def take(descriptors: Iterable[int]) -> None:
    """Own these descriptors of listening stream sockets; raises Invalid for one that is none."""
    for fd in descriptors:
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise Invalid(
                f"descriptor {fd} was passed to listen on, and is no socket",
                remedy="let LISTEN_FDS count the sockets alone",
            ) from error
        if not listens(sock):
            sock.detach()
            raise Invalid(
                f"descriptor {fd} was passed to listen on, and does not listen",
                remedy="in a systemd socket unit use ListenStream=, with Accept=no",
            )
        sock.settimeout(0)
        os.set_inheritable(fd, False)  # noqa: FBT003 - its face
        _WAITING.append(sock)


def listens(sock: socket.socket) -> bool:
    """Say whether it is a stream socket that listens."""
    if sock.type != socket.SOCK_STREAM:
        return False
    with contextlib.suppress(OSError):
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


def claim(address: Address) -> socket.socket | None:
    """Return the socket that was passed for ``address``, for the caller to own; None where none was."""
    for sock in _WAITING:
        if is_at(sock, address):
            _WAITING.remove(sock)
            return sock
    return None


def waits(address: Address) -> bool:
    """Say whether a socket was passed for ``address`` and is not claimed yet."""
    return any(is_at(sock, address) for sock in _WAITING)


def unclaimed() -> list[str]:
    """Return where sockets listen that were passed and that nobody serves."""
    return [_name(sock) for sock in _WAITING]


def drop_unclaimed() -> None:
    """Close what nobody serves."""
    while _WAITING:
        _WAITING.pop().close()


def is_at(sock: socket.socket, address: Address) -> bool:
    """Say whether a socket listens at ``address``."""
    bound = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return address.unix and _path(bound) == address.path
    if address.unix or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    return bool(address.port) and bound[1] == address.port and _same_host(bound[0], address.host)


def _path(bound: str | bytes) -> str:
    return os.fsdecode(bound)  # an abstract name comes as bytes


def _same_host(bound: str, host: str) -> bool:
    if not host:
        return bound in {"::", "0.0.0.0"}  # noqa: S104 - asked for by a URL without host
    try:
        wanted = ipaddress.ip_address(host)
    except ValueError:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return bound in {target[0] for *_, target in found}
    return ipaddress.ip_address(bound) == wanted


def _name(sock: socket.socket) -> str:
    bound = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix://{_path(bound).replace(chr(0), '@', 1)}"
    return f"tcp://[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"tcp://{bound[0]}:{bound[1]}"
