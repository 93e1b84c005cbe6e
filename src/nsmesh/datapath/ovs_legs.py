"""What of a switch's wires is in the kernel: the ends in the pods and the node, and the way to the switch."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from nsmesh.core.errors import Refused
from nsmesh.datapath import apart, netns
from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort, TunnelPort
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.offloads import write_checksums

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
WANTED = 0x1 | 0x100
"""IFF_UP and IFF_PROMISC."""


class Legs:
    """Two kernel drivers, one for each side of a wire: both mark what they make with the wire's id.

    ``owner`` and ``namespaces`` as of :class:`LinuxDatapath`; each side has a group of interfaces of its own.
    """

    def __init__(self, owner: str, namespaces: Callable[[], Iterable[str]]) -> None:
        self._sides = tuple(
            ApartDatapath(owner=f"{owner}/ovs-{side}", namespaces=namespaces) for side in "ab"
        )

    async def make(
        self, side: int, wire: CrossConnect, port: KernelPort | TunnelPort, near: KernelPort
    ) -> Applied:
        """Make an end of a wire; ``near`` is where it leads: a port of the switch, or what is beside one."""
        near = replace(near, mtu=port.mtu, numbered=False)
        leg = self._sides[side]
        if isinstance(port, KernelPort):
            return await _pair(leg, wire, port, near)
        return await _tunnel(leg, wire, port, near)

    async def drop(self, wire_id: str, *sides: int) -> None:
        """Take the ends of a wire away, of some sides or of both."""
        for side in sides or range(len(self._sides)):
            await self._sides[side].remove(wire_id)

    def refused(self) -> Mapping[str, Mapping[str, int]]:
        """Say what the kernel has refused; see :meth:`Datapath.refused`."""
        total: dict[str, Counter[str]] = {}
        for leg in self._sides:
            for wire_id, counts in leg.refused().items():
                total.setdefault(wire_id, Counter()).update(counts)
        return total

    async def has(self) -> list[Existing]:
        """See :meth:`Datapath.has`."""
        return [existing for leg in self._sides for existing in await leg.has()]

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """See :meth:`Datapath.sweep`."""
        kept = set(owned)
        return [existing for leg in self._sides for existing in await leg.sweep(kept)]

    async def aclose(self) -> None:
        """See :meth:`Datapath.aclose`."""
        for leg in self._sides:
            await leg.aclose()


async def _tunnel(leg: LinuxDatapath, wire: CrossConnect, port: TunnelPort, near: KernelPort) -> Applied:
    """Make the kernel's tunnel in the node, with a pair from there to the switch."""
    applied = await leg.apply(replace(wire, a=near, b=port))
    if applied.outcome != "unchanged":
        # of frames from a node of this very machine the kernel has put off checksums, and joined some
        _write_checksums(apart.names_of(wire.id)[0])
    return applied


async def _pair(leg: LinuxDatapath, wire: CrossConnect, port: KernelPort, near: KernelPort) -> Applied:
    """Make the pair between a pod and the switch."""
    applied = await leg.apply(replace(wire, a=port, b=near))
    if applied.outcome != "unchanged":
        # a switch in user space passes frames on as they come, so the kernel writes checksums itself
        netns.call_in(port.netns, lambda: _write_checksums(port.name))
    return applied


def opened(home: str, names: Iterable[str]) -> dict[str, int]:
    """Have interfaces in a switch's namespace take frames for everybody; return their indexes.

    The switch would do so itself; but after each change of an interface it looks at all of them.
    """
    return netns.call_in(home, lambda: {name: _promiscuous(name) for name in names})


def _promiscuous(name: str) -> int:
    """Have an interface take frames for everybody, and be up; return its index."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
        (flags,) = struct.unpack_from("=H", answer, 16)
        if flags & WANTED != WANTED:
            request = struct.pack("=16sH22x", name.encode(), flags | WANTED)
            fcntl.ioctl(control, SIOCSIFFLAGS, request)
    return socket.if_nametoindex(name)


def _write_checksums(name: str) -> None:
    """Have the kernel write the checksums of what leaves by an interface; raises Refused."""
    try:
        write_checksums(name)
    except OSError as error:
        raise Refused(
            f"the kernel does not write the checksums of {name} itself: {error}",
            remedy="run as root",
        ) from error
