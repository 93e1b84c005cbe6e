"""Interfaces of our own network namespace: what is there, when that changes, making it transparent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from nsmesh.core.errors import Unavailable
from nsmesh.endpoints import programs

_RTMGRP_LINK = 1
_IPV6 = Path("/proc/sys/net/ipv6/conf")
_HAS_IPV6 = _IPV6.exists()


def index(name: str) -> int | None:
    """Return the index of an interface, or None. A new interface has a new index, whatever its name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


@contextlib.asynccontextmanager
async def changes(changed: asyncio.Event) -> AsyncIterator[None]:
    """Set ``changed`` whenever any link of the namespace appears, changes or disappears, while entered."""
    loop = asyncio.get_running_loop()
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    ) as link:
        link.bind((0, _RTMGRP_LINK))

        def drain() -> None:
            # what changed is asked of the kernel afterwards, so lost messages (ENOBUFS) lose nothing
            try:
                while True:
                    link.recv(65536)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            changed.set()

        loop.add_reader(link, drain)
        try:
            yield
        finally:
            loop.remove_reader(link)


async def make_transparent(name: str) -> None:
    """Set an interface up, let it take frames for anybody, and take every address from it.

    IPv6 is switched off on it, so the namespace says nothing of its own on the wire. Raises Unavailable.
    """
    # it fails where the kernel has no IPv6, or /proc is read-only: then addrgenmode has to do
    with contextlib.suppress(OSError):
        _write(_IPV6 / name / "disable_ipv6", "1")
    quiet = f"link set dev {name} addrgenmode none\n" if _HAS_IPV6 else ""
    commands = f"{quiet}link set dev {name} promisc on\naddr flush dev {name}\nlink set dev {name} up\n"
    await programs.demand(Unavailable, "ip", "-batch", "-", given=commands)


def set_sysctl(path: str, value: str) -> None:
    """Write a setting under ``/proc/sys/net`` of our own namespace. Raises Unavailable where it cannot be."""
    try:
        _write(Path("/proc/sys/net") / path, value)
    except OSError as error:
        raise Unavailable(
            f"net.{path.replace('/', '.')} cannot be set to {value}: {error.strerror}",
            remedy="let /proc/sys be writable for this process (a container: privileged, or its sysctls)",
        ) from None


def _write(path: Path, value: str) -> None:
    if path.read_text().strip() == value:
        return  # read-only mounts are common, and so is a value that is right already
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)
