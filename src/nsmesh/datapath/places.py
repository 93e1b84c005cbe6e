"""Namespaces opened for one operation and those of the same moment: a descriptor and a netlink socket."""

from __future__ import annotations

import asyncio
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

HELD = 0.1
"""Seconds for which an opened namespace is held at most: wires into one are often made one after another."""
MOST_HELD = 64


class Place:
    """One opened namespace. ``ipv6``: what a new interface has by default, None where the kernel lacks it."""

    __slots__ = ("cookie", "descriptor", "given", "identity", "ipv6", "netlink", "path")

    def __init__(self, path: str, descriptor: int, netlink: Netlink) -> None:
        self.path = path
        self.descriptor = descriptor
        self.identity = netns.identity(descriptor)
        self.netlink = netlink
        self.cookie = netlink.cookie
        self.given = False
        self.ipv6: bool | None = None

    def close(self) -> None:
        """Let go of the namespace."""
        if not self.given:
            self.netlink.close()
        os.close(self.descriptor)

    def give(self) -> Netlink:
        """Give the socket away; the new owner closes it."""
        self.given = True
        return self.netlink


class Places:
    """The namespaces of one operation, by path; a ``with`` block gives them back to their doors."""

    __slots__ = ("_doors", "_found")

    def __init__(self, doors: Doors, found: dict[str, Place]) -> None:
        self._doors = doors
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
            self._doors.take_back(place)


class Doors:
    """Opens namespaces. Keeps the descriptor of its own, to come back to; those of others for a moment.

    What is held is found again by its path, if that still leads to the same namespace: as long as it is
    open, no other can have its inode. Two operations, one within the other, never share one.
    """

    def __init__(self) -> None:
        self._home = netns.current()
        self._ipv6 = Path(_IPV6_CONF).exists()
        self._prepared: dict[int, bool | None] = {}
        self.most = MOST_HELD
        self._held: dict[str, Place] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        with Netlink() as netlink:
            self._hosts = {netlink.cookie}
        with suppress(MeshError):  # another user's, or no procfs of the host: our own stands for it
            self._hosts.add(self._cookie_at(netns.of_pid(1)))

    def _cookie_at(self, location: str) -> int:
        with self.open([location]) as places:
            return places[location].cookie

    def close(self) -> None:
        """Let go of everything."""
        self._release()
        if self._home >= 0:
            os.close(self._home)
            self._home = -1

    @property
    def closed(self) -> bool:
        """Whether nothing can be opened any more."""
        return self._home < 0

    def open(self, locations: Iterable[str], *, prepare: bool = False, lenient: bool = False) -> Places:
        """Open each namespace once, all in one excursion of the calling thread; raises MeshError.

        With ``prepare`` workloads' namespaces get the settings that a workload may rely on. With ``lenient``
        those that do not exist are left out.
        """
        if self.closed:
            raise Unavailable("this datapath is closed", remedy="make a new one")
        found: dict[str, Place] = {}
        away = False
        try:
            for location in locations:
                if location not in found:
                    place = self._again(location)
                    if place is None:
                        away = True
                        place = self._open(location, lenient=lenient)
                    if place is not None:
                        self._add(place, location, found)
                        if prepare:
                            away = self._prepare(place) or away
        except BaseException:
            Places(self, found).close()
            raise
        finally:
            if away:
                netns.enter(self._home)
        return Places(self, found)

    def _again(self, location: str) -> Place | None:
        """Return what is held of a path, if the path still leads there."""
        place = self._held.pop(location, None)
        if place is None:
            return None
        try:
            if netns.identity(netns.path_of(location)) == place.identity:
                return place
        except OSError:
            pass  # opening it says what is wrong
        place.close()
        return None

    def _open(self, location: str, *, lenient: bool) -> Place | None:
        """Open a namespace; the calling thread is in it then. None where it is not there, if ``lenient``."""
        try:
            descriptor = netns.open_netns(location)
        except NotFound:
            if lenient:
                return None
            raise
        try:
            netns.enter(descriptor)
            return Place(location, descriptor, Netlink())
        except MeshError as error:
            os.close(descriptor)
            raise type(error)(f"{error.what} ({location})", remedy=error.remedy) from error
        except OSError as error:
            os.close(descriptor)
            raise explain(error.errno or 0, f"cannot open a netlink socket in {location}") from error

    def _add(self, place: Place, location: str, found: dict[str, Place]) -> None:
        for other in found.values():
            if other.cookie == place.cookie:  # two paths lead to one namespace
                place.close()
                place = other
                break
        found[location] = place

    def take_back(self, place: Place) -> None:
        """Hold a place for those who come next, where a running loop lets go of it soon."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 - the public one raises where there is none
        if loop is None or place.given or self._home < 0 or len(self._held) >= self.most:
            place.close()
            return
        before = self._held.pop(place.path, None)
        if before is not None:
            before.close()
        self._held[place.path] = place
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(HELD, self._release)

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, {}
        for place in held.values():
            place.close()

    def _prepare(self, place: Place) -> bool:
        """Once for each namespace: read IPv6's default, and let every group ping where a workload lives.

        Return whether the calling thread went there for it. Who changes the default later finds out from the
        kernel's refusal, see ``veth.configure``.
        """
        if place.cookie in self._prepared:
            place.ipv6 = self._prepared[place.cookie]
            return False
        netns.enter(place.descriptor)
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
        return True

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
