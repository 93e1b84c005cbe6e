"""The driver ``linux``: wires as veth pairs, or tunnels between nodes, programmed over route netlink.

Set-up is done in the calling thread: a wire takes the kernel some 0.3 ms under its global lock, and handing
that to a thread costs more than it frees. Deletions take 20 ms and go to the reaper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import structlog

from nsmesh.core.errors import Conflict, Exhausted, MeshError, NotFound, Refused
from nsmesh.datapath import announcing, netns, rtnetlink, veth
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort, TunnelTaken
from nsmesh.datapath.end_watch import EndWatch
from nsmesh.datapath.heirs import Heirs
from nsmesh.datapath.inventory import Census, close_ends, group_of, survey
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Netlink
from nsmesh.datapath.packed import mac_text
from nsmesh.datapath.payload_counts import told
from nsmesh.datapath.payload_filter import Filters, filter_of
from nsmesh.datapath.places import Doors, Place, Places
from nsmesh.datapath.reaper import Reaper
from nsmesh.datapath.record import Record, born, refuse_one_name, sides
from nsmesh.datapath.rtread import Link
from nsmesh.datapath.tunnels import Tunnels
from nsmesh.datapath.veth import DOOMED_GROUP, End, NameTaken
from nsmesh.datapath.wirestate import EndState, alias_of, check_wire, desired_end

log = structlog.get_logger()

_ATTEMPTS = 8
PATIENCE = 0.1
"""Seconds that a new wire waits at most for the index of the one whose place it takes."""


def _nowhere() -> Iterable[str]:
    return ()


class LinuxDatapath:
    """Kernel wires on this host; implements :class:`nsmesh.datapath.base.Datapath`.

    ``owner`` sets several drivers of one host apart: ``has`` and ``sweep`` see only their own owner's wires.
    ``namespaces`` gives the paths in which ``has``, ``sweep`` and ``remove`` look besides those that this
    driver worked in (for example :func:`nsmesh.datapath.netns.named`). ``node`` is the path of the namespace
    that has the underlay, in which tunnels end; empty: this process's own.
    """

    name = "linux"

    def __init__(
        self, *, owner: str = "", namespaces: Callable[[], Iterable[str]] = _nowhere, node: str = ""
    ) -> None:
        self._doors = Doors()
        self._node = node
        self._reaper = Reaper()
        self._namespaces = namespaces
        self._group = group_of(owner)
        self._records: dict[str, Record] = {}
        self._met: dict[str, list[Existing]] = {}
        self._looked = False  # whether all that exists and is not of a record is among what was met
        self._tunnels = Tunnels(node, self._revive)
        self._filters = Filters()
        self._heirs = Heirs()
        self._ends: EndWatch | None = None
        self._metric = ExitStack()
        self._metric.enter_context(told(self.refused))

    async def apply(self, wire: CrossConnect) -> Applied:
        """See :meth:`Datapath.apply`. A failed change leaves the wire; the next apply goes on from there.

        Where an end moves to another namespace or name, the pair is made anew.
        """
        record = self._records.get(wire.id)
        if record is not None and record.wire == wire and self._stands(record):
            return Applied("unchanged", *record.macs)
        check_wire(wire)
        if record is None and self._heirs.waiting(self._doors, wire.interfaces):
            await self._reaper.drain_within(PATIENCE)
        try:
            if wire.tunnel is None:
                return self._open_and_apply(wire)
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

    async def silence(self, wire_id: str) -> None:
        """See :meth:`Watched.silence`."""
        record = self._records.get(wire_id)
        if record is None or not isinstance(record.wire.b, KernelPort):
            return
        path, index = record.ends[-1]
        with self._doors.open([path], lenient=True) as places:
            place = places.get(path)
            if place is not None and (link := veth.find_link(place, index=index)) and link.owner == wire_id:
                batch = Batch()
                batch.put(rtnetlink.set_up(index, up=False))
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

    async def _revive(self, wire_id: str) -> None:
        """Make a wire's device again, which vanished with the program that made it."""
        record = self._records.get(wire_id)
        if record is not None:
            await self.apply(record.wire)

    def _stands(self, record: Record) -> bool:
        """Whether the interfaces are still where they were made; asks without netlink."""
        return self._doors.names_at(record.ends) == [port.name for port in record.wire.interfaces]

    def _open_and_apply(self, wire: CrossConnect) -> Applied:
        locations = [port.netns for port in wire.interfaces]
        with self._doors.open(locations, prepare=True) as places:
            return self._apply(wire, [places[location] for location in locations])

    def _apply(self, wire: CrossConnect, places: Sequence[Place]) -> Applied:
        if len(places) == 2 and places[0] is places[1]:
            refuse_one_name(wire)
        if wire.id not in self._records and wire.id not in self._met:
            try:
                return self._create(wire, places)
            except NameTaken:
                log.debug("interface exists", connection=wire.id)
        ports = wire.interfaces
        links = [veth.find_link(place, name=port.name) for place, port in zip(places, ports, strict=True)]
        if any(self._is_wire(wire, owner, places, links) for owner in (wire.id, wire.formerly) if owner):
            return self._adopt(wire, places, links)
        self._refuse_strangers(wire, places, links)
        outcome = "changed" if self._clear(wire, links) else "created"
        try:
            return replace(self._create(wire, places), outcome=outcome)
        except NameTaken as error:
            names = " or ".join(f"{port.name} in {port.netns}" for port in ports)
            raise Conflict(
                f"{names} was taken by somebody else just now",
                remedy="ask again, or ask for another interface name",
            ) from error

    def _is_wire(
        self, wire: CrossConnect, owner: str, places: Sequence[Place], links: Sequence[Link | None]
    ) -> bool:
        """Whether interfaces are the living ends of this wire, of ``owner``, and lead where it leads."""
        found = [link for link in links if link is not None]
        if len(found) < len(links) or any(
            link.owner != owner or link.group == DOOMED_GROUP for link in found
        ):
            return False
        if wire.tunnel is not None:
            return self._tunnels.leads_to(wire, places[0], found[0].index)
        return found[0].link == found[1].index and found[1].link == found[0].index

    def _refuse_strangers(
        self, wire: CrossConnect, places: Sequence[Place], links: Sequence[Link | None]
    ) -> None:
        """Raise Conflict where a name belongs to somebody else than this wire and its remains."""
        for place, port, link in zip(places, wire.interfaces, links, strict=True):
            if link is None or link.group == DOOMED_GROUP or link.owner == wire.id:
                continue
            if link.group == self._group and not link.alias:
                continue  # a process of ours died while it made this one
            ours = link.group == self._group
            if ours and link.owner not in self._records:  # so that it can be removed, wherever it is
                met = Existing(link.owner, port.netns, port.name, link.index, link.up)
                self._met.setdefault(link.owner, []).append(met)
            raise veth.name_conflict(End(place, port.name, link.index, wire.id), link, ours=ours)

    def _clear(self, wire: CrossConnect, links: Sequence[Link | None]) -> bool:
        """Take away what is left of this wire, and what has a name that it needs; say if it was there."""
        record = self._records.pop(wire.id, None)
        self._unwatch(wire.id)
        ends = set(record.ends) if record else set()
        ends.update((met.netns, met.index) for met in self._met.pop(wire.id, []))
        ends.update(
            (port.netns, link.index) for port, link in zip(wire.interfaces, links, strict=True) if link
        )
        return close_ends(self._doors, self._reaper, ends, {wire.id, ""}, rename=True)

    def _create(self, wire: CrossConnect, places: Sequence[Place]) -> Applied:
        """Make new interfaces; raises NameTaken where a name is in use, and MeshError, leaving nothing."""
        wire_id, ports = wire.id, wire.interfaces
        alias, wish = alias_of(wire_id), filter_of(wire)
        for attempt in range(_ATTEMPTS):
            ends: list[End] = []
            wanted: list[EndState] = []
            batches: list[Batch] = []
            for place, port in zip(places, ports, strict=True):
                index, mac = self._heirs.of(place, port) if not attempt else (0, b"")
                index = index or veth.fresh_index()
                state = born(port, index, mac)
                ends.append(End(place, port.name, index, wire_id))
                wanted.append(state)
                ipv6 = place.ipv6 is not None and state.has_room_for_ipv6
                first = self._filters.messages(index, wish, first=not batches)
                batches.append(veth.configuration(index, state, alias, ipv6=ipv6, first=first))
            if self._make(wire, ends, wanted):
                break
            if attempt:
                veth.skip_indexes()
        else:
            raise Exhausted(
                f"no free interface index was found for connection {wire.id}",
                remedy="look for a process that makes very many interfaces",
            )
        try:
            self._filters.begin(ends, wish)
            for end, state, batch in zip(ends, wanted, batches, strict=True):
                veth.configure(self._doors, end, state, batch)
        except BaseException:
            self._undo(ends, wanted)
            raise
        return self._remember(wire, ends, wanted, "created")

    def _make(self, wire: CrossConnect, ends: Sequence[End], wanted: Sequence[EndState]) -> bool:
        """Make the bare interfaces; return False where an index is in use, with nothing made."""
        if wire.tunnel is None:
            return veth.new_pair(ends[0], ends[1], (wanted[0], wanted[1]), self._group)
        with netns.call_in(self._node, Netlink) if self._node else Netlink() as node:
            return self._tunnels.new_device(node, ends[0], wanted[0], wire.tunnel, self._group)

    def _undo(self, ends: Sequence[End], wanted: Sequence[EndState]) -> None:
        try:
            for end, state in zip(ends, wanted, strict=True):
                veth.retire(end.place, end.ifindex)
                veth.remove_rules(end.place, state.rules)
        except (MeshError, OSError) as error:
            self._looked = False
            log.warning("a wire that failed is not closed yet", end=str(ends[0]), error=str(error))
        self._reaper.give(dict.fromkeys(end.place for end in ends))

    def _adopt(self, wire: CrossConnect, places: Sequence[Place], links: Sequence[Link | None]) -> Applied:
        """Take over what stands, and change only what differs."""
        ends, wanted, details = [], [], []
        for side, place, port, link in zip(sides(wire), places, wire.interfaces, links, strict=True):
            assert link is not None
            end = End(place, port.name, link.index, wire.id)
            state = desired_end(port, link.index)
            done = [str(operation) for operation in veth.converge(self._doors, end, link, state)]
            done += self._filters.converge(place, link.index, filter_of(wire))
            details += [f"{side}: {operation}" for operation in done]
            batch = Batch()
            if link.owner != wire.id:
                batch.put(rtnetlink.mark(link.index, alias_of(wire.id), no_link_local=False))
                details.append(f"{side}: take over from {link.owner}")
            if link.group != self._group:
                batch.put(rtnetlink.set_group(link.index, self._group))
            if batch:
                place.netlink.send(batch)
            ends.append(end)
            wanted.append(state if state.mac else state._replace(mac=link.mac))
        applied = self._remember(wire, ends, wanted, "changed" if details else "unchanged")
        return replace(applied, details=tuple(details))

    def _remember(
        self, wire: CrossConnect, ends: Sequence[End], states: Sequence[EndState], outcome: str
    ) -> Applied:
        macs = [mac_text(state.mac) for state in states]
        if len(macs) == 1:
            macs.insert(0 if isinstance(wire.b, KernelPort) else 1, "")
        both = macs[0], macs[1]
        places = [(end.place.path, end.ifindex) for end in ends]
        self._met.pop(wire.id, None)
        for port, end, state in zip(wire.interfaces, ends, states, strict=True):
            self._heirs.note(end.place, port, end.ifindex, state.mac)
        if self._ends is not None:
            self._ends.add(wire.id, [(end.place, end.ifindex) for end in ends])
        self._records[wire.id] = Record(wire, tuple(places), both)
        return Applied(outcome, *both)

    async def remove(self, wire_id: str) -> None:
        """See :meth:`Datapath.remove`. The interfaces are down at once and deleted soon after."""
        if not self._looked and wire_id not in self._records and wire_id not in self._met:
            await self.has()
        record = self._records.pop(wire_id, None)
        self._unwatch(wire_id)
        await self._tunnels.forget(wire_id)
        ends = set(record.ends) if record else set()
        ends.update((met.netns, met.index) for met in self._met.pop(wire_id, []))
        rules = record is None or any(port.rules for port in record.wire.interfaces)
        looked, self._looked = self._looked, False
        close_ends(self._doors, self._reaper, ends, {wire_id}, rules=rules)
        self._looked = looked
        self._filters.forget(ends)

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

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """See :meth:`Datapath.sweep`; returns when it is all deleted."""
        kept = set(owned)
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
            await self._tunnels.forget(wire_id)
        await self._reaper.drain()
        return gone

    def _unwatch(self, wire_id: str) -> None:
        if self._ends is not None:
            self._ends.forget(wire_id)

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
