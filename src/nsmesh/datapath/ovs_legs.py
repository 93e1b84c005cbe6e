"""What of a switch's wires is in the kernel: the ends in the pods and the node, and the way to the switch."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from nsmesh.core.errors import MeshError, Refused
from nsmesh.datapath import apart, netns, vlans
from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort, TunnelPort
from nsmesh.datapath.offloads import write_checksums
from nsmesh.datapath.ovs_dpdk import has_leg
from nsmesh.datapath.places import Places
from nsmesh.datapath.record import Record
from nsmesh.datapath.vlans import ApartVlanDatapath
from nsmesh.model.tunnels import VlanPort

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
WANTED = 0x1 | 0x100
"""IFF_UP and IFF_PROMISC."""


_NOTHING = Applied("")
"""What was done to an end that is no interface here."""


class _ClientSide(ApartDatapath):
    """The driver of clients' ends: what is behind them is the switch, and no endpoint that may be dead."""

    def _refuse_silenced(self, record: Record, places: Places) -> None:
        """Refuse nothing: an end of ours that somebody has set down is set up again."""


class Legs:
    """Two kernel drivers, one for each side of a wire: both mark what they make with the wire's id.

    The endpoint's side may be a VLAN outside of the mesh: then its end in the node is a port of that bridge.

    ``owner`` and ``namespaces`` as of :class:`LinuxDatapath`; each side has a group of interfaces of its own.
    The end that leads to the switch is on the client's side the endpoint's place, and else the client's.
    """

    def __init__(self, owner: str, namespaces: Callable[[], Iterable[str]]) -> None:
        self._sides: tuple[ApartDatapath, ApartDatapath] = (
            _ClientSide(owner=f"{owner}/ovs-a", namespaces=namespaces),
            ApartVlanDatapath(owner=f"{owner}/ovs-b", namespaces=namespaces),
        )

    async def make(
        self, side: int, wire: CrossConnect, port: KernelPort | TunnelPort, near: KernelPort
    ) -> Applied:
        """Make an end of a wire; ``near`` is where it leads: a port of the switch, or what is beside one."""
        near = replace(near, mtu=port.mtu, numbered=False)
        leg = self._sides[side]
        whole = replace(wire, b=near) if side == 0 else replace(wire, a=near)
        applied = await leg.apply(whole)
        if applied.outcome != "unchanged":
            _finish(whole.id, port)
        return applied

    def watch(self, tell: Callable[[str], None]) -> None:
        """See :meth:`Watched.watch`."""
        for leg in self._sides:
            leg.watch(tell)

    async def restore(self, wire: CrossConnect) -> tuple[Applied, Applied]:
        """Make the ends of a wire as they were; return what was done to each, nothing where it has none here.

        The endpoint's first: where it cannot be made the client's loses its carrier, since it leads nowhere.
        Raises as :meth:`Watched.restore`.
        """
        client, endpoint = self._sides
        try:
            far = await endpoint.restore(wire.id)
            near = await client.restore(wire.id)
        except MeshError:
            await client.silence([wire.id])
            raise
        done = near or _NOTHING, far or _NOTHING
        for port, one in zip((wire.a, wire.b), done, strict=True):
            if one.outcome not in {"", "unchanged"} and has_leg(port):
                _finish(wire.id, port)
        return done

    async def silence(self, wire_ids: Iterable[str]) -> None:
        """See :meth:`Watched.silence`: the client's end has no carrier then, either."""
        ids = list(wire_ids)
        for leg in self._sides:
            await leg.silence(ids)

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

    async def tidy(self) -> int:
        """See :meth:`Datapath.tidy`."""
        return sum([await leg.tidy() for leg in self._sides])

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """See :meth:`Datapath.sweep`."""
        kept = set(owned)
        return [existing for leg in self._sides for existing in await leg.sweep(kept)]

    async def aclose(self) -> None:
        """See :meth:`Datapath.aclose`."""
        for leg in self._sides:
            await leg.aclose()


def _finish(wire_id: str, port: KernelPort | TunnelPort) -> None:
    """Have the kernel write checksums itself where packets leave for a switch in user space.

    It passes them on as they come. Of frames from a node of this very machine the kernel has put checksums
    off, too, and joined some.
    """
    if isinstance(port, KernelPort):
        netns.call_in(port.netns, lambda: _write_checksums(port.name))
    else:
        _write_checksums(vlans.name_of(wire_id) if isinstance(port, VlanPort) else apart.names_of(wire_id)[0])


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
