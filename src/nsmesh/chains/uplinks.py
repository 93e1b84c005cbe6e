"""VLANs that a forwarder puts clients onto: which interfaces lead to them, and the driver that can do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import structlog
import yaml

from nsmesh.chains.settings import ForwarderSettings
from nsmesh.core.errors import Invalid
from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.segments import SegmentDatapath
from nsmesh.datapath.vlans import ApartVlanDatapath, VlanDatapath, interface_mtu
from nsmesh.mechanisms.vlan import Vlan
from nsmesh.model.messages import VLAN
from nsmesh.model.vlan import parse_uplinks

log = structlog.get_logger()


def uplinks_of(settings: ForwarderSettings) -> dict[str, str]:
    """Return the interfaces that lead to VLANs by their ``via``. Raises Invalid for a file that is none."""
    found: dict[str, str] = {}
    for name in dict.fromkeys((settings.device_selector_file, settings.l2_resource_selector_file)):
        if name:
            found |= _read(Path(name))
    return found


def _read(path: Path) -> dict[str, str]:
    try:
        return parse_uplinks(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise Invalid(
            f"the device selector file {path} cannot be used: {error}",
            remedy="write interfaces: [{name: eth1, matches: [{labelSelector: [{via: gw-1}]}]}]",
        ) from None


def lacks_vlans(settings: ForwarderSettings) -> str:
    """Return why this node cannot put clients onto VLANs though it shall, or nothing."""
    return lacks(VLAN) if uplinks_of(settings) else ""


def vlans(settings: ForwarderSettings) -> list[Vlan]:
    """Return the mechanism VLAN where there are interfaces for it and the kernel can do it; else nothing."""
    found = uplinks_of(settings)
    if not found:
        return []
    reason = lacks_vlans(settings)
    if reason:
        log.warning("mechanism not offered", mechanism=VLAN, why=reason)
        return []
    return [Vlan(found, link_mtu=interface_mtu)]


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
    driver = kinds[settings.tunnels_apart, bool(uplinks_of(settings))]
    return driver(owner=owner, namespaces=namespaces, vxlan_gro=settings.vxlan_gro)
