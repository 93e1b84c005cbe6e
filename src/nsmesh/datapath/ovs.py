"""The driver ``ovs``: wires through Open vSwitches in user space.

Each end is a veth pair, one end in the pod and the other a port of a switch, made by a kernel driver of its
own with all that belongs on a pod's interface: addresses, routes, the filter of the payload. Two flows lead
the frames of one port to the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from nsmesh.core.errors import Invalid, MeshError, Unavailable
from nsmesh.datapath import announcing, netns
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort, Port
from nsmesh.datapath.ovs_dpdk import check_ends, has_leg, is_socket
from nsmesh.datapath.ovs_legs import Legs, opened
from nsmesh.datapath.ovs_rows import SwitchPort
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.datapath.ovs_switches import MOST, Switches
from nsmesh.datapath.ovs_wear import MEMORY
from nsmesh.datapath.payload_counts import told_later
from nsmesh.datapath.segments import made_anew
from nsmesh.model.messages import ETHERNET


def names_of(wire_id: str) -> tuple[str, str]:
    """Return the names of a wire's two ports at its switch."""
    digest = hashlib.sha256(wire_id.encode()).hexdigest()[:10]
    return f"nsmo{digest}a", f"nsmo{digest}b"


class OvsDatapath:
    """Wires through ``first`` and more switches; implements :class:`nsmesh.datapath.base.Datapath`.

    ``owner`` and ``namespaces`` as of :class:`LinuxDatapath`, ``most`` and ``apart`` of
    :class:`Switches`. Switches outlive the driver, and the next driver with such a first one takes them over.
    """

    name = "ovs"

    def __init__(
        self,
        first: Switch,
        *,
        owner: str = "",
        namespaces: Callable[[], Iterable[str]] = tuple,
        most: int = MOST,
        apart: bool = False,
    ) -> None:
        self.switches = Switches(first, most, apart=apart)
        self._own = -1 if first.node else netns.current()
        self._home = first.node or f"/proc/self/fd/{self._own}"
        self._known: set[str] | None = None
        self._made: dict[str, tuple[CrossConnect, tuple[str, str]]] = {}
        """Wires as this driver has applied them last, and the MACs of their ends."""
        self._reading = asyncio.Lock()
        self._metric = ExitStack()
        self._metric.enter_context(told_later(self.switches.refused))
        self._metric.enter_context(MEMORY.reading(self.switches.dpdk_memory))

        def places() -> list[str]:
            switches = list(self.switches)
            homes = map(self._home_of, switches)
            return [*namespaces(), *homes, *(switch.spares.place for switch in switches)]

        self._legs = Legs(owner, places)

    @property
    def switch(self) -> Switch:
        """The first switch of the node."""
        return self.switches.first

    def _home_of(self, switch: Switch) -> str:
        """Return the path of the namespace where a switch lives."""
        return self._home if switch is self.switch else switch.node

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
            switch = await self._place(wire)
            pair = await switch.spares.take(wire)
            applied = await self._by_pair(switch, wire, pair) if pair else []
            applied = applied or await self._by_ports(switch, wire)
        except BaseException:
            if wire.id not in known:
                await self.remove(wire.id)
            raise
        new = wire.id not in known
        known.add(wire.id)
        outcomes = {one.outcome for one in applied if one.outcome} or {"created" if new else "unchanged"}
        outcome = outcomes.pop() if len(outcomes) == 1 else "changed"
        details = tuple(detail for one in applied for detail in one.details)
        macs = applied[0].a_mac, applied[1].b_mac
        self._made[wire.id] = wire, macs
        return Applied(outcome, *macs, details)

    def watch(self, tell: Callable[[str], None]) -> None:
        """See :meth:`Watched.watch`; ports of the switch are watched where it is kept alive."""
        self._legs.watch(tell)
        self.switches.tell = tell

    async def restore(self, wire_id: str) -> Applied | None:
        """See :meth:`Watched.restore`."""
        made = self._made.get(wire_id)
        if made is None:
            return None
        wire = made[0]
        done = await self._legs.restore(wire)
        if switch := self.switches.at(wire_id):
            await _replace(switch, wire_id, done)
        applied = await self.apply(wire)
        changed = any(one.outcome not in {"", "unchanged"} for one in done)
        return replace(applied, outcome="changed") if changed else applied

    async def silence(self, wire_ids: Iterable[str]) -> None:
        """See :meth:`Watched.silence`."""
        await self._legs.silence(wire_ids)

    def announce(self, wire_id: str) -> None:
        """See :meth:`Announcing.announce`."""
        if made := self._made.get(wire_id):
            announcing.announce(*made)

    async def _place(self, wire: CrossConnect) -> Switch:
        """Return the switch of a wire; what it had at another one is gone."""
        before = self.switches.at(wire.id)
        switch = await self.switches.place(wire)
        if before is not None and before is not switch:
            await self._unplug(before, wire.id)
            await self._legs.drop(wire.id)
        return switch

    async def _by_ports(self, switch: Switch, wire: CrossConnect) -> list[Applied]:
        """Make a wire's ends, with ports of its own."""
        home = self._home_of(switch)
        ends = tuple(zip(names_of(wire.id), (wire.a, wire.b), strict=True))
        others = {name: await switch.port(name, end, wire) for name, end in ends if not has_leg(end)}
        applied = [
            await self._end(switch, side, wire, end, KernelPort(home, name))
            for side, (name, end) in enumerate(ends)
        ]
        if wire.id in await self._ids():
            await _replace(switch, wire.id, applied)
        indexes = opened(home, [name for name, _ in ends if name not in others])
        ports = {name: SwitchPort(name, mark=str(index)) for name, index in indexes.items()} | others
        # where an end is an interface, the kernel enforces the payload there
        payload = ETHERNET if indexes else wire.payload
        one, other = (replace(ports[name], payload=payload) for name, _ in ends)
        await _connect(switch, wire.id, one, other)
        return applied

    async def _by_pair(self, switch: Switch, wire: CrossConnect, pair: tuple[str, ...]) -> list[Applied]:
        """Make a wire's ends beside those of two ports that are there, and lead its frames to them.

        Return nothing where that is not possible: then those ports are gone.
        """
        names = names_of(wire.id)
        place = switch.spares.place
        applied = [
            await self._end(switch, side, wire, end, KernelPort(place, name))
            for side, (name, end) in enumerate(zip(names, (wire.a, wire.b), strict=True))
        ]
        try:
            await switch.spares.join(wire.id, dict(zip(pair, names, strict=True)))
        except MeshError:
            return []
        return applied

    async def _ids(self) -> set[str]:
        """Return the ids of the wires that are there: an apply of theirs that fails leaves them.

        They are read once; from then on it is the same set, to which all that is made and removed is told.
        """
        async with self._reading:
            if self._known is None:
                await self.switches.adopt()
                self._known = {existing.id for existing in await self.has()} | self.switches.wires()
        return self._known

    async def _end(
        self, switch: Switch, side: int, wire: CrossConnect, port: Port, near: KernelPort
    ) -> Applied:
        """Make the kernel's part of an end, where it has one; what an end of another kind left goes.

        ``near`` is where it leads to: a port of the switch, or what is beside one.
        """
        if has_leg(port):
            return await self._legs.make(side, wire, port, near)
        if wire.id in await self._ids():
            await self._legs.drop(wire.id, side)
        if is_socket(port):
            await switch.ensure_dpdk()
        return Applied("")

    async def remove(self, wire_id: str) -> None:
        """See :meth:`Datapath.remove`."""
        self._made.pop(wire_id, None)
        try:
            await self.switches.adopt()
            switch = self.switches.at(wire_id) or self.switch
            # a pair goes to another wire, and must not lead to this one any more
            if switch.has_wires() and await _has_pair(switch, wire_id):
                await self._legs.drop(wire_id)
            await self._unplug(switch, wire_id)
        finally:
            await self._legs.drop(wire_id)
            async with self._reading:
                if self._known is not None:
                    self._known.discard(wire_id)

    async def _unplug(self, switch: Switch, wire_id: str) -> None:
        """Take a wire out of a switch."""
        try:
            if switch.has_wires():
                await switch.ports.disconnect(wire_id)
        finally:
            switch.spares.look()
            switch.sockets.forget(names_of(wire_id))
            if self.switches.at(wire_id) is switch:
                self.switches.leave(wire_id)

    def refused(self) -> Mapping[str, Mapping[str, int]]:
        """See :meth:`Datapath.refused`: what the kernel refuses, at interfaces."""
        return self._legs.refused()

    async def has(self) -> list[Existing]:
        """See :meth:`Datapath.has`."""
        return await self._legs.has()

    async def tidy(self) -> int:
        """See :meth:`Datapath.tidy`: interfaces; ports and flows carry their owner from the first moment."""
        return await self._legs.tidy()

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """See :meth:`Datapath.sweep`."""
        kept = set(owned)
        known = await self._ids()
        # ends first: a pair of ports goes to another wire, and must not lead to this one any more
        swept = await self._legs.sweep(kept)
        known.difference_update(existing.id for existing in swept)
        for wire_id in self._made.keys() - kept:
            del self._made[wire_id]
        for switch in self.switches:
            if switch.has_wires():
                gone = [wire_id for wire_id in await switch.ports.owners() if wire_id not in kept]
                await asyncio.gather(*(self._unplug(switch, wire_id) for wire_id in gone))
                known.difference_update(gone)
        return swept

    async def aclose(self) -> None:
        """See :meth:`Datapath.aclose`; the switches stay."""
        self._metric.close()
        await self.switches.close()
        await self._legs.aclose()
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


async def _replace(switch: Switch, wire_id: str, done: Iterable[Applied]) -> None:
    """Take those of a wire's own ports out whose interfaces were made anew: a switch goes on with the old."""
    names = [name for name, one in zip(names_of(wire_id), done, strict=True) if made_anew(one)]
    if names:
        await switch.ports.take_out(names)


async def _has_pair(switch: Switch, wire_id: str) -> bool:
    """Whether a wire has ports that were made in advance; also where that is not to be found out now."""
    try:
        return bool(await switch.ports.pair_with(wire_id))
    except Unavailable:
        return True


async def _connect(switch: Switch, wire_id: str, one: SwitchPort, other: SwitchPort) -> None:
    """Have a switch join two ports; once more, where one that has used its memory up was followed."""
    try:
        await switch.ports.connect(wire_id, one, other)
    except Unavailable:
        if not await switch.renewed():
            raise
        await switch.ports.connect(wire_id, one, other)
