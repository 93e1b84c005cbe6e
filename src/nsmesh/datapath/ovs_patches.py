"""Patch ports: pairs that join our bridge to one of somebody else at the same switch, for a wire onto a VLAN.

The half in our bridge is a port as any other. The far half, in theirs, is an access port of the VLAN, and
carries the names of its wire and of its forwarder: by them it is found again. Both come and go together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from nsmesh.core.errors import Refused
from nsmesh.datapath import netns
from nsmesh.datapath.base import TunnelRefused
from nsmesh.datapath.ovs_database import Row, mapping, members, transact, unmapped
from nsmesh.datapath.ovs_rows import (
    OWNER,
    FarPort,
    KnownPort,
    SwitchPort,
    far_of,
    inserted,
    plugged,
    put,
    select,
    there,
)
from nsmesh.datapath.vlans import mtu_of
from nsmesh.model.tunnels import BridgePort

PATCH = "patch"
"""The kind of such a port."""
FORWARDER = "nsm-forwarder"
"""Key of ``external_ids``: which forwarder's a bridge is, or a port in a bridge of others."""


def patch_port(name: str, end: BridgePort, forwarder: str) -> SwitchPort:
    """Return the port of a wire onto a VLAN of a bridge, with its other half there."""
    far = FarPort(far_of(name), end.bridge, end.vlan, forwarder)
    return SwitchPort(name, PATCH, (("peer", far.name),), f"{PATCH} {far.mark}", far=far)


def is_half(name: str, port: KnownPort, far: Mapping[str, KnownPort]) -> bool:
    """Whether a port is that whose other half is among those in bridges of others."""
    other = far.get(far_of(name))
    return other is not None and (port.owner, port.mark) == (other.owner, f"{PATCH} {other.mark}")


def as_it_was(name: str, port: KnownPort) -> SwitchPort:
    """Return a port to an interface, or to a bridge of others where its other half is, as it was."""
    made = SwitchPort(name, mark=port.mark, payload=port.payload)
    if not port.mark.startswith(PATCH):
        return made
    return replace(made, kind=PATCH, options=(("peer", far_of(name)),))


def new_far(port: SwitchPort, owner: str) -> list[Row]:
    """Return the operations that make the other half of a port, if it has one.

    They are refused, with all others of their transaction, where the bridge has gone.
    """
    far = port.far
    if far is None:
        return []
    interface: Row = {"name": far.name, "type": PATCH, "options": mapping({"peer": port.name})}
    access: Row = {
        "tag": far.vlan,
        "vlan_mode": "access",
        "external_ids": mapping({OWNER: owner, FORWARDER: far.forwarder}),
    }
    made = inserted(far.name, interface, access)
    return [there("Bridge", far.bridge), *made, plugged(far.bridge, [far.name])]


def reading(forwarder: str) -> list[Row]:
    """Return the operations that read a forwarder's ports in bridges of others, for :func:`read`."""
    mine = ["external_ids", "includes", mapping({FORWARDER: forwarder})]
    ports: Row = select("Port", ["_uuid", "name", "tag", "external_ids"])
    return [{**ports, "where": [mine]}, select("Bridge", ["name", "ports"])]


def read(answers: list[Row]) -> tuple[dict[str, KnownPort], list[list[str]]]:
    """Return those ports by their names, and all of their ``_uuid``."""
    ports, bridges = (answer["rows"] for answer in answers)
    places = {uuid: row["name"] for row in bridges for _, uuid in members(row["ports"])}
    found = {
        row["name"]: KnownPort(
            unmapped(row["external_ids"]).get(OWNER, ""),
            f"{places.get(row['_uuid'][1], '')} {members(row['tag'])[0] if members(row['tag']) else ''}",
            0,
        )
        for row in ports
    }
    return found, [row["_uuid"] for row in ports]


def unplugged(uuids: Iterable[list[str]]) -> list[Row]:
    """Return the operations that take ports out of whatever bridges they are in."""
    return [
        put("Bridge", [["ports", "includes", ["set", [uuid]]]], "ports", "delete", ["set", [uuid]])
        for uuid in uuids
    ]


async def check_bridge(database: Path, end: BridgePort, kind: str) -> None:
    """Raise TunnelRefused where a bridge is not there, or cannot be joined to ours with datapath ``kind``."""
    columns = ["datapath_type", "external_ids"]
    rows = (await transact(database, select("Bridge", columns, end.bridge)))[0]["rows"]
    if not rows:
        raise TunnelRefused(_not_there(end, database), remedy=_make_it(end))
    forwarder = unmapped(rows[0]["external_ids"]).get(FORWARDER, "")
    if forwarder:
        raise TunnelRefused(
            f"via {end.via} leads to the bridge {end.bridge}, which is that of {forwarder} itself",
            remedy="name a bridge in the forwarder's device selector file that leads out",
        )
    theirs = rows[0]["datapath_type"] or "system"
    if theirs != kind:
        raise TunnelRefused(
            f"via {end.via} leads to the bridge {end.bridge} at {database}, whose datapath is of type "
            f"{theirs}: ours is of type {kind}, and no port joins the two",
            remedy=f"set NSM_DATAPATH_TYPE={theirs}, or name another bridge in the device selector file",
        )


def bridge_mtu(end: BridgePort, home: str, database: Path) -> int:
    """Return the MTU of a bridge in bytes, by its own interface in the switch's namespace ``home``.

    ``home`` empty: the calling thread's. The switch keeps it at the least of the bridge's ports. Raises
    Refused without it.
    """
    mtu = netns.call_in(home, lambda: mtu_of(end.bridge)) if home else mtu_of(end.bridge)
    if mtu is None:
        raise Refused(_not_there(end, database), remedy=_make_it(end))
    return mtu


def _not_there(end: BridgePort, database: Path) -> str:
    return f"via {end.via} leads to the bridge {end.bridge}, and the Open vSwitch at {database} has none"


def _make_it(end: BridgePort) -> str:
    return f"have it made (ovs-vsctl add-br {end.bridge}), or correct the forwarder's device selector file"
