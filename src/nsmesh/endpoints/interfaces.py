"""Interfaces of our own network namespace: what is there, when that changes, making it transparent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from nsmesh.core.errors import Unavailable
from nsmesh.datapath import programs

_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_RTM_NEWADDR = 20
_HEADER = struct.Struct("=IHHII")
_IFADDRMSG = struct.Struct("=BBBBI")
_IPV6 = Path("/proc/sys/net/ipv6/conf")
HAS_IPV6 = _IPV6.exists()
"""Whether the kernel has IPv6."""


def index(name: str) -> int | None:
    """Return the index of an interface, or None. A new interface has a new index, whatever its name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


@contextlib.asynccontextmanager
async def changes(changed: asyncio.Event) -> AsyncIterator[set[int]]:
    """Set ``changed`` whenever a link of the namespace appears, changes, disappears or gets an address.

    Yields a set, to be emptied by the caller: the indexes of the links that somebody gave an address.
    """
    loop = asyncio.get_running_loop()
    numbered: set[int] = set()
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    ) as link:
        link.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))

        def drain() -> None:
            # what changed is asked of the kernel afterwards, so lost messages (ENOBUFS) lose nothing
            try:
                while True:
                    numbered.update(_numbered(link.recv(65536)))
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            changed.set()

        loop.add_reader(link, drain)
        try:
            yield numbered
        finally:
            loop.remove_reader(link)


def _numbered(data: bytes) -> Iterator[int]:
    offset = 0
    while offset + _HEADER.size + _IFADDRMSG.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, offset)
        if kind == _RTM_NEWADDR:
            yield _IFADDRMSG.unpack_from(data, offset + _HEADER.size)[4]
        offset += max((size + 3) & ~3, _HEADER.size)


async def make_transparent(*names: str) -> None:
    """Set interfaces up, let them take frames for anybody, and take every address from them.

    IPv6 is switched off on them, so the namespace says nothing of its own on the wire. Raises Unavailable.
    """
    lines = []
    for name in names:
        # it fails where the kernel has no IPv6, or /proc is read-only: then addrgenmode has to do
        with contextlib.suppress(OSError):
            _write(_IPV6 / name / "disable_ipv6", "1")
        if HAS_IPV6:
            lines.append(f"link set dev {name} addrgenmode none")
        lines += [f"link set dev {name} promisc on", f"addr flush dev {name}", f"link set dev {name} up"]
    await programs.demand(Unavailable, "ip", "-batch", "-", given="\n".join(lines) + "\n")


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
