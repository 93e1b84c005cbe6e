"""The driver ``linux``: wires as veth pairs, or tunnels between nodes, programmed over route netlink.

Set-up is done in the calling thread: a wire takes the kernel some 0.3 ms under its global lock, and handing
that to a thread costs more than it frees. What it waits for, new wires of one turn of the loop wait for
together. Deletions take 20 ms and go to the reaper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

from nsmesh.core.errors import MeshError, NotFound, Refused
from nsmesh.datapath import announcing, rtnetlink, veth
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort, TunnelTaken
from nsmesh.datapath.end_watch import EndWatch
from nsmesh.datapath.inventory import Census, close_ends, survey
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch
from nsmesh.datapath.one_wire import WireMaker
from nsmesh.datapath.payload_counts import told
from nsmesh.datapath.places import Place, Places
from nsmesh.datapath.record import Record
from nsmesh.datapath.rtread import read_some_links
from nsmesh.datapath.tunnels import Tunnels
from nsmesh.datapath.wirestate import EndState, check_wire

PATIENCE = 0.1
"""Seconds that a new wire waits at most for the index of the one whose place it takes."""
MOMENT = 0.1
"""Seconds after which an interface that is being made has its owner's mark, and one to be deleted is gone."""


def _nowhere() -> Iterable[str]:
    return ()


class LinuxDatapath(WireMaker):
    """Kernel wires on this host; implements :class:`nsmesh.datapath.base.Datapath`.

    ``owner`` sets several drivers of one host apart: ``has`` and ``sweep`` see only their own owner's wires.
    ``namespaces`` gives the paths in which ``has``, ``sweep`` and ``remove`` look besides those that this
    driver worked in (for example :func:`nsmesh.datapath.netns.named`). ``node`` is the path of the namespace
    that has the underlay, in which tunnels end; empty: this process's own. ``vxlan_gro``: see
    :class:`Tunnels`.
    """

    name = "linux"

    def __init__(
        self,
        *,
        owner: str = "",
        namespaces: Callable[[], Iterable[str]] = _nowhere,
        node: str = "",
        vxlan_gro: bool = True,
    ) -> None:
        super().__init__(owner, node, Tunnels(node, self._revive, vxlan_gro=vxlan_gro))
        self._looking = asyncio.Lock()  # who waits for a look that is under way need not look as well
        self._namespaces = namespaces
        self._silenced: set[str] = set()
        self._metric = ExitStack()
        self._metric.enter_context(told(self.refused))

    async def apply(self, wire: CrossConnect) -> Applied:
        """See :meth:`Datapath.apply`. A failed change leaves the wire; the next apply goes on from there.

        Where an end moves to another namespace or name, the pair is made anew.
        """
        record = self._records.get(wire.id)
        silenced = wire.id in self._silenced
        if record is not None and record.wire == wire and not silenced and self._stands(record):
            return Applied("unchanged", *record.macs)
        check_wire(wire)
        if record is None and self._heirs.waiting(self._doors, wire.interfaces):
            await self._reaper.drain_within(PATIENCE)
        try:
            if wire.tunnel is None:
                return await self._apply_here(wire)
            return await self._apply_tunnel(wire)
        except OSError as error:
            await self._reaper.drain()
            raise explain(error.errno or 0, f"cannot apply connection {wire.id}") from error
        except MeshError:
            await self._reaper.drain()
            raise

    def watch(self, tell: Callable[[str], None]) -> None:
        """See :meth:`Watched.watch`."""
        self._ends = EndWatch(tell)
        self._ends.open()

    async def restore(self, wire_id: str) -> Applied | None:
        """See :meth:`Watched.restore`."""
        record = self._records.get(wire_id)
        if record is None or self._ends is None:
            return None
        locations = [port.netns for port in record.wire.interfaces]
        with self._doors.open(locations) as places:
            cookies = [places[location].cookie for location in locations]
            self._refuse_silenced(record, places)
        if cookies != self._ends.cookies(wire_id):
            raise NotFound(f"a network namespace of connection {wire_id} is gone: another has its path")
        try:
            if record.wire.tunnel is not None:
                return await self._apply_tunnel(record.wire)
            return self._open_and_apply(record.wire)
        except OSError as error:
            raise explain(error.errno or 0, f"cannot restore connection {wire_id}") from error

    def announce(self, wire_id: str) -> None:
        """See :meth:`Announcing.announce`."""
        record = self._records.get(wire_id)
        if record is not None:
            announcing.announce(record.wire, record.macs)

    async def silence(self, wire_ids: Iterable[str]) -> None:
        """See :meth:`Watched.silence`."""
        ends: dict[str, dict[str, int]] = {}
        for wire_id in wire_ids:
            record = self._records.get(wire_id)
            if record is not None and isinstance(record.wire.b, KernelPort):
                path, index = record.ends[-1]
                ends.setdefault(path, {})[wire_id] = index
                self._silenced.add(wire_id)
                self._unwatch(wire_id)
        with self._doors.open(ends, lenient=True) as places:
            for path, indexes in ends.items():
                place = places.get(path)
                if place is not None:
                    self._set_down(place, indexes)

    def _set_down(self, place: Place, indexes: Mapping[str, int]) -> None:
        """Set wires' ends in one namespace down, by their owners."""
        try:
            links = read_some_links(place.netlink, indexes.values())
        except OSError as error:
            raise explain(error.errno or 0, f"cannot read the interfaces in {place.path}") from error
        batch = Batch()
        for link in links:
            if indexes.get(link.owner) == link.index:
                batch.put(rtnetlink.set_up(link.index, up=False))
        place.netlink.send(batch)

    def _refuse_silenced(self, record: Record, places: Places) -> None:
        """Raise Refused where the endpoint's end is down: so an endpoint that has died is left."""
        far = record.wire.b
        if isinstance(far, KernelPort):
            path, index = record.ends[-1]
            link = veth.find_link(places[path], index=index) if places.get(path) else None
            if link is not None and link.owner == record.wire.id and not link.up:
                raise Refused(f"the endpoint's end of connection {record.wire.id} was set down")

    async def _apply_tunnel(self, wire: CrossConnect) -> Applied:
        try:
            try:
                await self._tunnels.prepare(wire)
                applied = self._open_and_apply(wire)
            except TunnelTaken:
                await self._reaper.drain()  # a closed device has its tunnel until it is deleted
                await self._tunnels.prepare(wire)
                applied = self._open_and_apply(wire)
            await self._tunnels.settle(wire.id)
        except BaseException:
            if wire.id not in self._records:
                await self._tunnels.forget(wire.id)
            raise
        return applied

    def _remember(
        self, wire: CrossConnect, ends: Sequence[veth.End], states: Sequence[EndState], outcome: str
    ) -> Applied:
        self._silenced.discard(wire.id)
        return super()._remember(wire, ends, states, outcome)

    async def _revive(self, wire_id: str) -> None:
        """Make a wire's device again, which vanished with the program that made it."""
        record = self._records.get(wire_id)
        if record is not None:
            await self.apply(record.wire)

    async def remove(self, wire_id: str) -> None:
        """See :meth:`Datapath.remove`. The interfaces are down at once and deleted soon after."""
        if self._may_exist(wire_id):
            async with self._looking:
                if self._may_exist(wire_id):
                    await self.has()
        record = self._records.pop(wire_id, None)
        self._unwatch(wire_id)
        silenced = wire_id in self._silenced
        self._silenced.discard(wire_id)
        await self._tunnels.forget(wire_id)
        ends = set(record.ends) if record else set()
        ends.update((met.netns, met.index) for met in self._met.pop(wire_id, []))
        rules = record is None or any(port.rules for port in record.wire.interfaces)
        looked, self._looked = self._looked, False
        close_ends(self._doors, self._reaper, ends, {wire_id}, rules=rules, down=not silenced)
        self._looked = looked
        self._filters.forget(ends)

    def _may_exist(self, wire_id: str) -> bool:
        """Whether a wire that is not known may be somewhere that was not looked at."""
        return not self._looked and wire_id not in self._records and wire_id not in self._met

    def refused(self) -> dict[str, Mapping[str, int]]:
        """See :meth:`Datapath.refused`."""
        counts = {wire_id: self._filters.counted(one.ends) for wire_id, one in self._records.items()}
        return {wire_id: count for wire_id, count in counts.items() if count}

    async def has(self) -> list[Existing]:
        """See :meth:`Datapath.has`."""
        found = [existing for census in await self._survey() for existing in census.living(self._group)]
        self._meet(found)
        self._looked = True
        return found

    async def tidy(self) -> int:
        """See :meth:`Datapath.tidy`; returns when it is all deleted."""
        remains = await self._remains()
        if not remains:
            return 0
        await asyncio.sleep(MOMENT)
        remains &= await self._remains()
        close_ends(self._doors, self._reaper, remains, {""})
        await self._reaper.drain()
        return len(remains)

    async def _remains(self) -> set[tuple[str, int]]:
        return {(one.netns, index) for one in await self._survey() for index in one.remains(self._group)}

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """See :meth:`Datapath.sweep`; returns when it is all deleted."""
        kept = {*owned, *self._making}
        gone: list[Existing] = []
        for census in await self._survey():
            living = census.living(self._group)
            self._meet([existing for existing in living if existing.id in kept])
            unowned = [existing for existing in living if existing.id not in kept]
            gone += unowned
            ends = {(census.netns, index) for index in census.remains(self._group)}
            ends.update((census.netns, existing.index) for existing in unowned)
            close_ends(self._doors, self._reaper, ends, {existing.id for existing in unowned} | {""})
            census.drop_orphaned_rules(self._doors)
        for wire_id in [wire_id for wire_id in self._records if wire_id not in kept]:
            del self._records[wire_id]
            self._unwatch(wire_id)
            self._silenced.discard(wire_id)
            await self._tunnels.forget(wire_id)
        await self._reaper.drain()
        return gone

    def _meet(self, found: list[Existing]) -> None:
        """Remember what exists and was not applied by this driver: an apply of it will adopt it."""
        met: dict[str, list[Existing]] = {}
        for existing in found:
            if existing.id not in self._records:
                met.setdefault(existing.id, []).append(existing)
        self._met.update(met)

    async def _survey(self) -> list[Census]:
        places = dict.fromkeys(where for record in self._records.values() for where, _ in record.ends)
        places.update(dict.fromkeys(met.netns for ends in self._met.values() for met in ends))
        places.update(dict.fromkeys(self._namespaces()))
        return await survey(self._doors, places)

    async def drain(self) -> None:
        """Wait until what was removed so far is deleted."""
        await self._reaper.drain()

    async def aclose(self) -> None:
        """See :meth:`Datapath.aclose`; wires that a program of ours carries end with it."""
        self._metric.close()
        if self._ends is not None:
            self._ends.close()
        await self._tunnels.aclose()
        await self._reaper.aclose()
        self._doors.close()
