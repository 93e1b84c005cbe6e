"""One wire of the driver ``linux``: its interfaces are made, taken over as they stand, or made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import structlog

from nsmesh.core.errors import Conflict, Exhausted, MeshError, NotFound
from nsmesh.datapath import netns, rtnetlink, veth
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort
from nsmesh.datapath.end_watch import EndWatch
from nsmesh.datapath.heirs import Heirs
from nsmesh.datapath.inventory import close_ends, group_of
from nsmesh.datapath.netlink import Batch, Netlink
from nsmesh.datapath.packed import mac_text
from nsmesh.datapath.payload_filter import Filters, filter_of
from nsmesh.datapath.places import Doors, Place, Places
from nsmesh.datapath.reaper import Reaper
from nsmesh.datapath.record import Record, born, refuse_one_name, sides
from nsmesh.datapath.rtread import Link
from nsmesh.datapath.taken import name_conflict
from nsmesh.datapath.tunnels import Tunnels
from nsmesh.datapath.veth import DOOMED_GROUP, Configuration, End, NameTaken
from nsmesh.datapath.wirestate import EndState, alias_of, desired_end

log = structlog.get_logger()

_ATTEMPTS = 8


class Begun(NamedTuple):
    """A new wire whose interfaces exist and are down: what they shall be, and what is still to be sent."""

    wire: CrossConnect
    ends: Sequence[End]
    wanted: Sequence[EndState]
    batches: Sequence[Batch]

    def at(self, places: Sequence[Place]) -> Begun:
        """Return it with its namespaces opened anew; raises NotFound where another has the path of one."""
        for end, place in zip(self.ends, places, strict=True):
            if end.place.cookie != place.cookie:
                raise NotFound(f"the network namespace of {end} is gone: another has its path")
        ends = [end._replace(place=place) for end, place in zip(self.ends, places, strict=True)]
        return self._replace(ends=ends)


class WireMaker:
    """What a driver keeps of its wires, and how one of them becomes what it shall be.

    ``owner`` and ``node``: see :class:`nsmesh.datapath.linux.LinuxDatapath`. ``tunnels`` makes the devices of
    wires to other nodes. A wire that is known has a record; what was found and is nobody's record is met.
    """

    def __init__(self, owner: str, node: str, tunnels: Tunnels) -> None:
        self._doors = Doors()
        self._node = node
        self._reaper = Reaper()
        self._group = group_of(owner)
        self._tunnels = tunnels
        self._records: dict[str, Record] = {}
        self._met: dict[str, list[Existing]] = {}
        self._making: set[str] = set()  # whose interfaces are made, and who has no record yet
        self._looked = False  # whether all that exists and is not of a record is among what was met
        self._filters = Filters()
        self._heirs = Heirs()
        self._ends: EndWatch | None = None

    def _stands(self, record: Record) -> bool:
        """Whether the interfaces are still where they were made; asks without netlink."""
        return self._doors.names_at(record.ends) == [port.name for port in record.wire.interfaces]

    async def _apply_here(self, wire: CrossConnect) -> Applied:
        """Apply a wire of this node. One that is new and has filters is made together with others."""
        if wire.id not in self._records and wire.id not in self._met and filter_of(wire).directions:
            try:
                return await self._create_with_others(wire)
            except NameTaken:
                log.debug("interface exists", connection=wire.id)
        return self._open_and_apply(wire)

    def _open_and_apply(self, wire: CrossConnect) -> Applied:
        locations = [port.netns for port in wire.interfaces]
        with self._doors.open(locations, prepare=True) as places:
            return self._apply(wire, _of_ends(wire, places))

    def _apply(self, wire: CrossConnect, places: Sequence[Place]) -> Applied:
        if wire.id not in self._records and wire.id not in self._met:
            try:
                return self._create(wire, places)
            except NameTaken:
                log.debug("interface exists", connection=wire.id)
        ports = wire.interfaces
        links = [veth.find_link(place, name=port.name) for place, port in zip(places, ports, strict=True)]
        if any(self._is_wire(wire, owner, places, links) for owner in (wire.id, wire.formerly) if owner):
            return self._adopt(wire, places, links)
        self._refuse_strangers(wire, links)
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

    def _refuse_strangers(self, wire: CrossConnect, links: Sequence[Link | None]) -> None:
        """Raise Conflict where a name belongs to somebody else than this wire and its remains."""
        for port, link in zip(wire.interfaces, links, strict=True):
            if link is None or link.group == DOOMED_GROUP or link.owner == wire.id:
                continue
            if link.group == self._group and not link.alias:
                continue  # a process of ours died while it made this one
            ours = link.group == self._group
            if ours and link.owner not in self._records:  # so that it can be removed, wherever it is
                met = Existing(link.owner, port.netns, port.name, link.index, link.up)
                self._met.setdefault(link.owner, []).append(met)
            raise name_conflict(port.netns, link, ours=ours)

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
        begun = self._begin(wire, places)
        try:
            return self._finish(begun)
        except BaseException:
            self._undo(begun.ends, begun.wanted)
            raise

    async def _create_with_others(self, wire: CrossConnect) -> Applied:
        """Do what :meth:`_create` does, with a turn of the loop between its two parts.

        An interface's first filter waits in the kernel until no processor can still look at the place for
        filters as it was before, and the loop with it. Wires of one turn wait together: once for all.
        """
        locations = [port.netns for port in wire.interfaces]
        with self._doors.open(locations, prepare=True) as places:
            begun = self._begin(wire, _of_ends(wire, places))
        self._making.add(wire.id)
        try:
            await asyncio.sleep(0)
            with self._doors.open(locations, prepare=True) as places:
                return self._finish(begun.at(_of_ends(wire, places)))
        except BaseException:
            self._abandon(begun)
            raise
        finally:
            self._making.discard(wire.id)

    def _abandon(self, begun: Begun) -> None:
        """Undo what was begun, in those of its namespaces that are still there."""
        try:
            with self._doors.open([port.netns for port in begun.wire.interfaces], lenient=True) as places:
                open_now = {place.cookie: place for place in places.all()}
                for end, state in zip(begun.ends, begun.wanted, strict=True):
                    if place := open_now.get(end.place.cookie):
                        self._undo([end._replace(place=place)], [state])
        except MeshError as error:
            log.warning("a wire that was begun is not undone", connection=begun.wire.id, error=str(error))

    def _begin(self, wire: CrossConnect, places: Sequence[Place]) -> Begun:
        """Make the interfaces of a new wire, marked as ours where a filter comes later. Raises as _create."""
        wire_id, ports = wire.id, wire.interfaces
        alias, wish = alias_of(wire_id), filter_of(wire)
        for attempt in range(_ATTEMPTS):
            ends: list[End] = []
            wanted: list[EndState] = []
            batches: list[Configuration] = []
            for place, port in zip(places, ports, strict=True):
                index, mac = self._heirs.of(place, port) if not attempt else (0, b"")
                index = index or veth.fresh_index()
                state = born(port, index, mac)
                ends.append(End(place, port.name, index, wire_id))
                wanted.append(state)
                ipv6 = place.ipv6 is not None and state.has_room_for_ipv6
                filters = self._filters.messages(index, wish)
                batches.append(veth.configuration(index, state, alias, ipv6=ipv6, filters=filters))
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
            for end, batch in zip(ends, batches, strict=True):
                veth.send(end, batch.first)
        except BaseException:
            self._undo(ends, wanted)
            raise
        return Begun(wire, ends, wanted, [batch.then for batch in batches])

    def _finish(self, begun: Begun) -> Applied:
        """Give the interfaces of a new wire what they shall have; raises MeshError."""
        wire, ends, wanted, batches = begun
        for end, state, batch in zip(ends, wanted, batches, strict=True):
            veth.configure(self._doors, end, state, batch)
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

    def _unwatch(self, wire_id: str) -> None:
        if self._ends is not None:
            self._ends.forget(wire_id)


def _of_ends(wire: CrossConnect, places: Places) -> list[Place]:
    """Return the namespace of each end; raises Invalid where both are one, and their names too."""
    found = [places[port.netns] for port in wire.interfaces]
    if len(found) == 2 and found[0] is found[1]:
        refuse_one_name(wire)
    return found
