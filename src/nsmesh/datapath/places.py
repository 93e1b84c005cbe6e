"""Namespaces opened for the length of one operation: a descriptor and a netlink socket for each."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

import structlog

from nsmesh.core.errors import MeshError, NotFound, Unavailable
from nsmesh.datapath import netns
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Netlink

log = structlog.get_logger()

PING_GROUP_RANGE = b"0 2147483647"
_PING_SYSCTL = "/proc/sys/net/ipv4/ping_group_range"
_IPV6_CONF = "/proc/sys/net/ipv6/conf"
_REMEMBERED = 4096


class Place:
    """One opened namespace. ``ipv6``: what a new interface has by default, None where the kernel lacks it."""

    __slots__ = ("cookie", "descriptor", "given", "ipv6", "netlink", "path")

    def __init__(self, path: str, descriptor: int, netlink: Netlink) -> None:
        self.path = path
        self.descriptor = descriptor
        self.netlink = netlink
        self.cookie = netlink.cookie
        self.given = False
        self.ipv6: bool | None = None

    def close(self) -> None:
        """Let go of the namespace."""
        if not self.given:
            self.netlink.close()
        os.close(self.descriptor)

    def give(self) -> tuple[int, Netlink]:
        """Give the socket away, with the namespace's cookie; the new owner closes it."""
        self.given = True
        return self.cookie, self.netlink


class Places:
    """The namespaces of one operation, by path; a ``with`` block closes them."""

    def __init__(self, found: dict[str, Place]) -> None:
        self._found = found

    def __getitem__(self, path: str) -> Place:
        return self._found[path]

    def get(self, path: str) -> Place | None:
        """Return the namespace at ``path``, or None where it was not found."""
        return self._found.get(path)

    def all(self) -> list[Place]:
        """Return each namespace once."""
        return list(dict.fromkeys(self._found.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all of them."""
        for place in self.all():
            place.close()


class Doors:
    """Opens namespaces. Holds one descriptor: that of its own namespace, to come back to."""

    def __init__(self) -> None:
        self._home = netns.current()
        self._ipv6 = Path(_IPV6_CONF).exists()
        self._prepared: dict[int, bool | None] = {}
        with Netlink() as netlink:
            self._hosts = {netlink.cookie}
        with suppress(MeshError):  # another user's, or no procfs of the host: our own stands for it
            self._hosts.add(self._cookie_at(netns.of_pid(1)))

    def _cookie_at(self, location: str) -> int:
        with self.open([location]) as places:
            return places[location].cookie

    def close(self) -> None:
        """Close the descriptor."""
        if self._home >= 0:
            os.close(self._home)
            self._home = -1

    def open(self, locations: Iterable[str], *, prepare: bool = False, lenient: bool = False) -> Places:
        """Open each namespace once, all in one excursion of the calling thread; raises MeshError.

        With ``prepare`` workloads' namespaces get the settings that a workload may rely on. With ``lenient``
        those that do not exist are left out.
        """
        if self._home < 0:
            raise Unavailable("this datapath is closed", remedy="make a new one")
        found: dict[str, Place] = {}
        try:
            for location in locations:
                if location not in found:
                    self._open(location, found, prepare=prepare, lenient=lenient)
        except BaseException:
            Places(found).close()
            raise
        finally:
            netns.enter(self._home)
        return Places(found)

    def _open(self, location: str, found: dict[str, Place], *, prepare: bool, lenient: bool) -> None:
        try:
            descriptor = netns.open_netns(location)
        except NotFound:
            if lenient:
                return
            raise
        try:
            netns.enter(descriptor)
            place = Place(location, descriptor, Netlink())
        except MeshError as error:
            os.close(descriptor)
            raise type(error)(f"{error.what} ({location})", remedy=error.remedy) from error
        except OSError as error:
            os.close(descriptor)
            raise explain(error.errno or 0, f"cannot open a netlink socket in {location}") from error
        for other in found.values():
            if other.cookie == place.cookie:
                place.close()
                found[location] = other
                return
        found[location] = place
        if prepare:
            self._prepare(place)

    def _prepare(self, place: Place) -> None:
        """Once for each namespace: read IPv6's default, and let every group ping where a workload lives.

        Who changes the default later finds out from the kernel's refusal, see ``veth.configure``.
        """
        if place.cookie in self._prepared:
            place.ipv6 = self._prepared[place.cookie]
            return
        if self._ipv6:
            place.ipv6 = _read(f"{_IPV6_CONF}/default/disable_ipv6") == b"0\n"
        if place.cookie not in self._hosts:
            try:
                _write(_PING_SYSCTL, PING_GROUP_RANGE)
            except OSError as error:
                # A read-only /proc/sys: the wire works all the same, only ping needs a privilege there.
                log.warning("ping_group_range is not set", netns=place.path, error=str(error))
        if len(self._prepared) >= _REMEMBERED:
            self._prepared.clear()
        self._prepared[place.cookie] = place.ipv6

    def switch_ipv6(self, place: Place, name: str, *, on: bool) -> None:
        """Switch IPv6 of one interface on or off; raises OSError."""
        with netns.inside(place.descriptor, self._home):
            _write(f"{_IPV6_CONF}/{name}/disable_ipv6", b"0" if on else b"1")

    def names_at(self, ends: Iterable[tuple[str, int]]) -> list[str]:
        """Return the interface name at each (namespace, index), empty where there is none. No netlink."""
        names = []
        try:
            for location, index in ends:
                try:
                    descriptor = netns.open_netns(location)
                except MeshError:
                    names.append("")
                    continue
                try:
                    netns.enter(descriptor)
                    names.append(socket.if_indextoname(index))
                except (OSError, MeshError):
                    names.append("")
                finally:
                    os.close(descriptor)
        finally:
            netns.enter(self._home)
        return names


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 64)
    finally:
        os.close(descriptor)


def _write(path: str, value: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)
