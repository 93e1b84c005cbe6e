"""The driver ``ovs``: wires through an Open vSwitch in user space.

Each end is a veth pair, one end in the pod and the other a port of the switch, made by a kernel driver of its
own with all that belongs on a pod's interface: addresses, routes, the filter of the payload. Two flows lead
the frames of one port to the other.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import structlog

from nsmesh.core.errors import Invalid, MeshError, Refused, Unavailable
from nsmesh.datapath import apart, netns
from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort, Port, TunnelPort
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.offloads import write_checksums
from nsmesh.datapath.ovs_dpdk import check_ends, is_socket
from nsmesh.datapath.ovs_rows import SwitchPort
from nsmesh.datapath.ovs_switch import BRIDGE, Switch
from nsmesh.datapath.ovs_wear import MEMORY
from nsmesh.datapath.payload_counts import told_later
from nsmesh.model.messages import ETHERNET

log = structlog.get_logger()

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
WANTED = 0x1 | 0x100
"""IFF_UP and IFF_PROMISC."""


def names_of(wire_id: str) -> tuple[str, str]:
    """Return the names of a wire's two ports at the switch."""
    digest = hashlib.sha256(wire_id.encode()).hexdigest()[:10]
    return f"nsmo{digest}a", f"nsmo{digest}b"


class OvsDatapath:
    """Wires through a switch in ``directory``; implements :class:`nsmesh.datapath.base.Datapath`.

    ``owner``, ``namespaces`` and ``node`` as of :class:`LinuxDatapath`; the switch lives in ``node``. It
    outlives the driver, and the next driver with that directory takes it over. ``spares`` and ``ends`` as of
    :class:`Switch`.
    """

    name = "ovs"

    def __init__(
        self,
        directory: Path,
        *,
        owner: str = "",
        namespaces: Callable[[], Iterable[str]] = tuple,
        node: str = "",
        bridge: str = BRIDGE,
        memory: int = 0,
        spares: int = 0,
        ends: str = "",
    ) -> None:
        self._own = -1 if node else netns.current()
        self._home = node or f"/proc/self/fd/{self._own}"
        self.switch = Switch(directory, node, bridge, memory, spares=spares, ends=ends)
        self._known: set[str] | None = None
        self._reading = asyncio.Lock()

        def places() -> list[str]:
            return [*namespaces(), self._home, self.switch.spares.place]

        self._metric = ExitStack()
        self._metric.enter_context(told_later(self._refused_by_flows))
        self._metric.enter_context(MEMORY.reading(self.switch.dpdk_memory))
        # one for each side: both mark what they make with the wire's id, in groups of their own
        self._legs = tuple(ApartDatapath(owner=f"{owner}/ovs-{side}", namespaces=places) for side in "ab")

    async def apply(self, wire: CrossConnect) -> Applied:
        """See :meth:`Datapath.apply`. Raises TunnelRefused for an end that is no interface here."""
        a, b = wire.a, wire.b
        check_ends(wire)
        if isinstance(a, KernelPort) and isinstance(b, KernelPort) and (a.name, a.netns) == (b.name, b.netns):
            raise Invalid(
                f"both ends of connection {wire.id} are called {a.name} in {a.netns}",
                remedy="give the two ends different names, or different namespaces",
            )
        await self.switch.ensure()
        known = await self._ids()
        try:
            pair = await self.switch.spares.take(wire)
            applied = await self._by_pair(wire, pair) if pair else []
            applied = applied or await self._by_ports(wire)
        except BaseException:
            if wire.id not in known:
                await self.remove(wire.id)
            raise
        new = wire.id not in known
        known.add(wire.id)
        outcomes = {one.outcome for one in applied if one.outcome} or {"created" if new else "unchanged"}
        outcome = outcomes.pop() if len(outcomes) == 1 else "changed"
        details = tuple(detail for one in applied for detail in one.details)
        return Applied(outcome, applied[0].a_mac, applied[1].a_mac, details)

    async def _by_ports(self, wire: CrossConnect) -> list[Applied]:
        """Make a wire's ends, with ports of its own."""
        ends = tuple(zip(names_of(wire.id), (wire.a, wire.b), strict=True))
        sockets = {name: self.switch.sockets.port(name, end, wire) for name, end in ends if is_socket(end)}
        applied = [
            await self._end(leg, wire, end, KernelPort(self._home, name))
            for leg, (name, end) in zip(self._legs, ends, strict=True)
        ]
        indexes = self._open([name for name, _ in ends if name not in sockets])
        ports = {name: SwitchPort(name, mark=str(index)) for name, index in indexes.items()} | sockets
        # where an end is an interface, the kernel enforces the payload there
        payload = wire.payload if len(sockets) == 2 else ETHERNET
        one, other = (replace(ports[name], payload=payload) for name, _ in ends)
        await self._connect(wire.id, one, other)
        return applied

    async def _by_pair(self, wire: CrossConnect, pair: tuple[str, ...]) -> list[Applied]:
        """Make a wire's ends beside those of two ports that are there, and lead its frames to them.

        Return nothing where that is not possible: then those ports are gone.
        """
        names = names_of(wire.id)
        place = self.switch.spares.place
        applied = [
            await self._end(leg, wire, end, KernelPort(place, name))
            for leg, name, end in zip(self._legs, names, (wire.a, wire.b), strict=True)
        ]
        try:
            await self.switch.spares.join(wire.id, dict(zip(pair, names, strict=True)))
        except MeshError:
            return []
        return applied

    async def _connect(self, wire_id: str, one: SwitchPort, other: SwitchPort) -> None:
        """Have the switch join two ports; once more, where one that has used its memory up was followed."""
        try:
            await self.switch.ports.connect(wire_id, one, other)
        except Unavailable:
            if not await self.switch.renewed():
                raise
            await self.switch.ports.connect(wire_id, one, other)

    async def _ids(self) -> set[str]:
        """Return the ids of the wires that are there: an apply of theirs that fails leaves them.

        They are read once; from then on it is the same set, to which all that is made and removed is told.
        """
        async with self._reading:
            if self._known is None:
                found = {existing.id for existing in await self.has()}
                if self.switch.flows.exists():
                    found |= set(await self.switch.ports.owners())
                self._known = found
        return self._known

    async def _end(self, leg: LinuxDatapath, wire: CrossConnect, port: Port, near: KernelPort) -> Applied:
        """Make the kernel's part of an end, where it has one; what an end of another kind left goes.

        ``near`` is where it leads to: a port of the switch, or what is beside one.
        """
        if isinstance(port, KernelPort | TunnelPort):
            near = replace(near, mtu=port.mtu, numbered=False)
            return await (
                self._leg(leg, wire, port, near)
                if isinstance(port, KernelPort)
                else self._tunnel(leg, wire, port, near)
            )
        if wire.id in await self._ids():
            await leg.remove(wire.id)
        await self.switch.ensure_dpdk()
        return Applied("")

    async def _tunnel(
        self, leg: LinuxDatapath, wire: CrossConnect, port: TunnelPort, near: KernelPort
    ) -> Applied:
        """Make the kernel's tunnel in the node, with a pair from there to the switch."""
        applied = await leg.apply(replace(wire, a=near, b=port))
        if applied.outcome != "unchanged":
            # of frames from a node of this very machine the kernel has put off checksums, and joined some
            _write_checksums(apart.names_of(wire.id)[0])
        return applied

    async def _leg(
        self, leg: LinuxDatapath, wire: CrossConnect, port: KernelPort, near: KernelPort
    ) -> Applied:
        """Make the pair between a pod and the switch."""
        applied = await leg.apply(replace(wire, a=port, b=near))
        if applied.outcome != "unchanged":
            # a switch in user space passes frames on as they come, so the kernel writes checksums itself
            netns.call_in(port.netns, lambda: _write_checksums(port.name))
        return applied

    def _open(self, names: Iterable[str]) -> dict[str, int]:
        """Have the switch's interfaces take frames for everybody; return their indexes.

        The switch would do so itself; but after each change of an interface it looks at all of them.
        """
        return netns.call_in(self._home, lambda: {name: _promiscuous(name) for name in names})

    async def remove(self, wire_id: str) -> None:
        """See :meth:`Datapath.remove`."""
        try:
            # a pair goes to another wire, and must not lead to this one any more
            if self.switch.flows.exists() and await self.switch.ports.pair_with(wire_id):
                await self._drop_ends(wire_id)
            await self._unplug(wire_id)
            self.switch.spares.look()
            self.switch.sockets.forget(names_of(wire_id))
            await self._drop_ends(wire_id)
        finally:
            async with self._reading:
                if self._known is not None:
                    self._known.discard(wire_id)

    async def _drop_ends(self, wire_id: str) -> None:
        for leg in self._legs:
            await leg.remove(wire_id)

    async def _unplug(self, wire_id: str) -> None:
        if self.switch.flows.exists():
            await self.switch.ports.disconnect(wire_id)

    def refused(self) -> Mapping[str, Mapping[str, int]]:
        """See :meth:`Datapath.refused`: what the kernel refuses, at interfaces."""
        total: dict[str, Counter[str]] = {}
        for leg in self._legs:
            for wire_id, counts in leg.refused().items():
                total.setdefault(wire_id, Counter()).update(counts)
        return total

    async def _refused_by_flows(self) -> Mapping[str, Mapping[str, int]]:
        """Say what the switch itself has refused; nothing where it does not answer."""
        if not self.switch.flows.exists():
            return {}
        try:
            return await self.switch.ports.refused()
        except MeshError as error:
            log.debug("counters of the switch not read", error=str(error))
            return {}

    async def has(self) -> list[Existing]:
        """See :meth:`Datapath.has`."""
        return [existing for leg in self._legs for existing in await leg.has()]

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """See :meth:`Datapath.sweep`."""
        kept = set(owned)
        known = await self._ids()
        # ends first: a pair of ports goes to another wire, and must not lead to this one any more
        swept = [existing for leg in self._legs for existing in await leg.sweep(kept)]
        known.difference_update(existing.id for existing in swept)
        if self.switch.flows.exists():
            gone = [wire_id for wire_id in await self.switch.ports.owners() if wire_id not in kept]
            await asyncio.gather(*(self._unplug(wire_id) for wire_id in gone))
            known.difference_update(gone)
        return swept

    async def aclose(self) -> None:
        """See :meth:`Datapath.aclose`; the switch stays."""
        self._metric.close()
        await self.switch.ports.close()
        self.switch.spares.close()
        for leg in self._legs:
            await leg.aclose()
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


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
