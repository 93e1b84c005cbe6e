"""VLANs that a forwarder puts clients onto: what leads to them, and the driver that can do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog
import yaml

from nsmesh.chains.settings import ForwarderSettings
from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.segments import SegmentDatapath
from nsmesh.datapath.vlans import ApartVlanDatapath, VlanDatapath, interface_mtu
from nsmesh.mechanisms.vlan import Vlan, Way
from nsmesh.model.messages import VLAN
from nsmesh.model.tunnels import OutsidePort, VlanPort
from nsmesh.model.vlan import Bridge, Interface, Uplink, parse_uplinks

log = structlog.get_logger()

Bridged = Callable[[str, str], Way]
"""Returns the way of a ``via`` that leads to a bridge, both by their names."""


def uplinks_of(settings: ForwarderSettings) -> dict[str, Uplink]:
    """Return what leads to VLANs by the ``via`` that it serves. Raises Invalid for a file that is none."""
    found: dict[str, Uplink] = {}
    for name in dict.fromkeys((settings.device_selector_file, settings.l2_resource_selector_file)):
        if name:
            found |= _read(Path(name))
    return found


def _read(path: Path) -> dict[str, Uplink]:
    try:
        return parse_uplinks(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise Invalid(
            f"the device selector file {path} cannot be used: {error}",
            remedy="write interfaces: [{name: eth1, matches: [{labelSelector: [{via: gw-1}]}]}]",
        ) from None


def _by_interface(uplinks: Mapping[str, Uplink]) -> bool:
    return any(isinstance(uplink, Interface) for uplink in uplinks.values())


def _lack(uplinks: Mapping[str, Uplink]) -> str:
    return lacks(VLAN) if _by_interface(uplinks) else ""


def lacks_vlans(settings: ForwarderSettings) -> str:
    """Return why this node cannot put clients onto VLANs of its interfaces though it shall, or nothing."""
    return _lack(uplinks_of(settings))


def vlans(settings: ForwarderSettings, bridged: Bridged | None = None) -> list[Vlan]:
    """Return the mechanism VLAN where something leads there and the kernel can do it; else nothing.

    ``bridged`` makes the ways by bridges of an Open vSwitch; None: this forwarder uses none that has some.
    """
    found = uplinks_of(settings)
    bridges = {via: one.name for via, one in found.items() if isinstance(one, Bridge)}
    if bridges and bridged is None:
        log.warning(
            "bridges of the device selector file are served by forwarder-ovs with NSM_SWITCH_DATABASE alone",
            bridges=sorted(set(bridges.values())),
        )
    ways = {via: (bridged or _unserved)(via, name) for via, name in bridges.items()}
    reason = _lack(found)
    if reason:
        log.warning("mechanism not offered", mechanism=VLAN, why=reason)
    for via, one in found.items():
        if isinstance(one, Interface) and (ways or not reason):
            ways[via] = _lacking(via, reason) if reason else _interface(one.name)
    return [Vlan(ways)] if ways else []


def _interface(name: str) -> Way:
    return lambda vlan: VlanPort(name, vlan, interface_mtu(name))


def _lacking(via: str, reason: str) -> Way:
    def way(vlan: int) -> OutsidePort:
        raise Unavailable(
            f"VLAN {vlan} via {via} cannot be reached from this node: {reason}",
            remedy="use a node whose kernel can do it (nsm doctor)",
        )

    return way


def _unserved(via: str, bridge: str) -> Way:
    def way(vlan: int) -> OutsidePort:
        raise Invalid(
            f"VLAN {vlan} via {via} is behind the bridge {bridge} of an Open vSwitch, which this forwarder "
            "does not use",
            remedy="run forwarder-ovs with NSM_SWITCH_DATABASE (nsm up --forwarders linux,ovs --switch "
            "unix:/run/openvswitch/db.sock)",
        )

    return way


def driver_of(
    settings: ForwarderSettings, *, owner: str, namespaces: Callable[[], Iterable[str]]
) -> SegmentDatapath:
    """Return the driver that a forwarder's settings ask for."""
    kinds = {
        (False, False): SegmentDatapath,
        (False, True): VlanDatapath,
        (True, False): ApartDatapath,
        (True, True): ApartVlanDatapath,
    }
    driver = kinds[settings.tunnels_apart, _by_interface(uplinks_of(settings))]
    return driver(owner=owner, namespaces=namespaces, vxlan_gro=settings.vxlan_gro)
