"""What exists in the namespaces that a driver knows, and the closing of interfaces found there."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath import veth
from nsmesh.datapath.base import Existing
from nsmesh.datapath.places import Doors, Place
from nsmesh.datapath.reaper import Reaper
from nsmesh.datapath.rtread import Link, read_links, read_rules
from nsmesh.datapath.veth import DOOMED_GROUP
from nsmesh.datapath.wirestate import RuleState, table_index

log = structlog.get_logger()

LIVE_GROUP = 0x6E_73_6D_01
"""IFLA_GROUP of this driver's interfaces: a mark that is there from the first moment, before the alias."""
_TURN = 8
"""Namespaces to read before others may have a turn at the event loop."""


def group_of(owner: str) -> int:
    """Return the group of the interfaces of one driver of this host, told apart by ``owner``."""
    return LIVE_GROUP + zlib.crc32(owner.encode()) % 0xFF_FFFF if owner else LIVE_GROUP


@dataclass(frozen=True, slots=True)
class Census:
    """All interfaces of one namespace, and the policy rules there that carry our mark."""

    netns: str
    links: tuple[Link, ...]
    rules: tuple[RuleState, ...]

    def living(self, group: int) -> list[Existing]:
        """Return the interfaces of ``group`` that a connection owns."""
        return [
            Existing(link.owner, self.netns, link.name, link.index, link.up)
            for link in self.links
            if link.owner and link.group == group
        ]

    def remains(self, group: int) -> list[int]:
        """Return the indexes of what was closed and not deleted, or begun and not finished."""
        return [
            link.index
            for link in self.links
            if link.group == DOOMED_GROUP or (link.group == group and not link.alias)
        ]

    def orphaned_rules(self) -> list[RuleState]:
        """Return the policy rules whose interface is gone."""
        indexes = {link.index for link in self.links}
        return [rule for rule in self.rules if table_index(rule.table) not in indexes]

    def drop_orphaned_rules(self, doors: Doors) -> None:
        """Remove the policy rules whose interface is gone."""
        orphans = self.orphaned_rules()
        if orphans:
            with doors.open([self.netns], lenient=True) as places:
                for place in places.all():
                    veth.remove_rules(place, orphans)


async def survey(doors: Doors, locations: Iterable[str]) -> list[Census]:
    """Read each namespace once, under the first of its paths; those that cannot be opened hold nothing."""
    found: list[Census] = []
    seen: set[int] = set()
    for turn, location in enumerate(locations):
        if turn % _TURN == _TURN - 1:
            await asyncio.sleep(0)
        try:
            with doors.open([location]) as places:
                place = places[location]
                if place.cookie in seen:
                    continue
                seen.add(place.cookie)
                links = tuple(read_links(place.netlink))
                found.append(Census(location, links, tuple(read_rules(place.netlink))))
        except (MeshError, OSError) as error:
            log.debug("namespace not read", netns=location, error=str(error))
    return found


def close_ends(
    doors: Doors,
    reaper: Reaper,
    ends: Iterable[tuple[str, int]],
    owners: Collection[str],
    *,
    rename: bool = False,
    rules: bool = True,
    down: bool = True,
) -> bool:
    """Set interfaces down, remove their rules and have them deleted; return whether any was alive.

    ``ends`` are (namespace, index). Only interfaces of ``owners`` (connection ids; empty for one without
    owner) and those closed already are touched. With ``rename`` their names are free at once; ``rules`` false
    says that they have no policy rules, ``down`` false that nothing passes through them any more: then they
    stay as they are until they are deleted.
    """
    wanted = list(ends)
    with doors.open((location for location, _ in wanted), lenient=True) as places:
        closed: dict[int, Place] = {}
        alive = False
        for location, index in wanted:
            place = places.get(location)
            link = veth.find_link(place, index=index) if place else None
            if place is None or link is None or not (link.group == DOOMED_GROUP or link.owner in owners):
                continue
            if rules:
                _remove_rules(place, index)
            veth.retire(place, index, rename=rename, down=down)
            closed[place.cookie] = place
            alive = alive or link.group != DOOMED_GROUP
        reaper.give(closed.values())
        return alive


def _remove_rules(place: Place, index: int) -> None:
    rules = [rule for rule in read_rules(place.netlink) if table_index(rule.table) == index]
    if rules:
        veth.remove_rules(place, rules)
