"""The listening sockets of a mesh's processes, held by the daemon: they outlive who serves them.

Who connects between the end of a process and the start of the next one waits in the backlog and is served.
Of a process that fails again and again nobody is made to wait: its sockets are closed, dials are refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath import netns
from nsmesh.rpc import inherited, listening
from nsmesh.rpc.address import Address, parse
from nsmesh.standalone.processes import Started

log = structlog.get_logger()

MODE = 0o600
"""Of the sockets' files: who else may ask is decided by certificates."""
_PIDFD_GETFD = 438
"""The number of the system call, the same on all machines."""


class HeldSockets:
    """Sockets by unit, and by URL below that."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, socket.socket]] = {}

    def open(self, unit: str, urls: Sequence[str], place: str = "") -> list[int]:
        """Return the descriptors of a unit's sockets, opened where they are not; ``place``: its namespace.

        One that cannot be opened here is left to the process, which says why.
        """
        held = self._held.setdefault(unit, {})
        for url in urls:
            if url not in held:
                try:
                    held[url] = self._opened(parse(url), place)
                except MeshError as error:
                    log.warning("a socket is not held", unit=unit, url=url, error=str(error))
        return [sock.fileno() for sock in held.values()]

    def _opened(self, address: Address, place: str) -> socket.socket:
        passed = inherited.claim(address)
        if passed is not None:
            return passed
        if address.unix or not place:
            return listening.listen(address, MODE)
        return netns.call_in(place, lambda: listening.listen(address, MODE))

    def take_over(self, unit: str, urls: Sequence[str], process: Started) -> None:
        """Hold what a living process listens on: passed on by the last daemon, else a copy of its own.

        What cannot be had (the kernel may forbid to look into it) is not held; it listens all the same.
        """
        held = self._held.setdefault(unit, {})
        missing = []
        for url in urls:
            passed = inherited.claim(parse(url))
            if passed is not None:
                held[url] = passed
            elif url not in held:
                missing.append(url)
        if missing:
            held |= _of_process(process.pid, missing)

    def release(self, unit: str) -> None:
        """Close a unit's sockets and remove their files: who dials is refused."""
        for sock in self._held.pop(unit, {}).values():
            name = sock.getsockname()
            if sock.family == socket.AF_UNIX and isinstance(name, str) and name:
                Path(name).unlink(missing_ok=True)
            sock.close()

    def holds(self, unit: str) -> bool:
        """Say whether a socket of the unit is held."""
        return bool(self._held.get(unit))

    def descriptors(self) -> list[int]:
        """Return all that is held, for the next daemon."""
        return [sock.fileno() for held in self._held.values() for sock in held.values()]

    def close(self) -> None:
        """Let all go and leave the files: other processes listen on."""
        for held in self._held.values():
            for sock in held.values():
                sock.close()
        self._held.clear()


def _of_process(pid: int, urls: Sequence[str]) -> dict[str, socket.socket]:
    """Return copies of the sockets on which a process listens, those at ``urls``."""
    wanted = {url: parse(url) for url in urls}
    found: dict[str, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        try:
            handle = os.pidfd_open(pid)
            names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - numbers are what is wanted
        except OSError:
            return found
        stack.callback(os.close, handle)
        for name in names:
            sock = _copy(handle, pid, int(name))
            if sock is None:
                continue
            url = next((url for url, where in wanted.items() if inherited.is_at(sock, where)), "")
            if not url or url in found:
                sock.close()
            else:
                found[url] = sock
    return found


def _copy(handle: int, pid: int, number: int) -> socket.socket | None:
    """Return a copy of a descriptor of another process if it is a listening socket."""
    try:
        if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):  # noqa: PTH115 - no path
            return None
    except OSError:
        return None
    copy = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, handle, number, 0)
    if copy < 0:
        return None
    sock = socket.socket(fileno=copy)
    if not inherited.listens(sock):
        sock.close()
        return None
    sock.settimeout(0)
    return sock
