"""Which mechanisms a forwarder has: local ones always, others where its settings and this node allow."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import structlog

from nsmesh.chains.settings import ForwarderSettings
from nsmesh.chains.uplinks import Bridged, lacks_vlans, vlans
from nsmesh.core.errors import Invalid
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.underlay import Underlay, ipv6_beside
from nsmesh.mechanisms.geneve import Geneve
from nsmesh.mechanisms.gre import Gre
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.memif import Memif
from nsmesh.mechanisms.srv6 import Srv6
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.mechanisms.wireguard import Wireguard
from nsmesh.model.messages import GENEVE, GRE, SRV6, VLAN, VXLAN, WIREGUARD
from nsmesh.model.names import nearest
from nsmesh.model.tunnels import VXLAN_PORT

log = structlog.get_logger()

MECHANISMS = "mechanisms"
"""Label of a forwarder in the registry: the types that it has, with dots between them."""
LACKS = "lacks"
"""Label of a forwarder: the mechanisms that it has not, each with the reason, separated by semicolons."""

ORDER = (VXLAN, GENEVE, GRE, SRV6, WIREGUARD)
"""The usual order of tunnels. It is the same on every node, whatever its kernel can do: what is cheap first,
what costs a program for each wire last. Payloads choose among them by themselves."""


def mechanisms_of(
    settings: ForwarderSettings, bridged: Bridged | None = None, *, framed: bool = False
) -> list[MechanismPlugin]:
    """Return the mechanisms of a forwarder in the order in which it offers them.

    ``bridged`` as of :func:`nsmesh.chains.uplinks.vlans`. ``framed``: its datapath takes frames alone, as a
    switch does. Raises Invalid for a tunnel address that is none, and for a type in NSM_MECHANISMS that is
    none.
    """
    found: list[MechanismPlugin] = [Kernel()]
    if settings.tunnel_ip:
        underlay = Underlay(settings.tunnel_ip)
        missing = lacking(settings)
        for kind in ORDER:
            if kind in missing:
                log.info("mechanism not offered", mechanism=kind, why=missing[kind])
            else:
                found.append(_tunnel(kind, settings, underlay.mtu, framed=framed or settings.tunnels_apart))
    else:
        log.info("wires to other nodes are not made: NSM_TUNNEL_IP is not set")
    found += vlans(settings, bridged)
    found.append(Memif())
    return by_priority(found, settings.mechanism_priority)


def lacking(settings: ForwarderSettings) -> dict[str, str]:
    """Return the tunnels that a forwarder cannot or shall not make, by type, each with the reason.

    Without a tunnel address there are none to speak of. Raises Invalid as :func:`mechanisms_of`.
    """
    wanted = {name.upper() for name in settings.mechanisms}
    for name in sorted(wanted.difference(ORDER)):
        near = nearest(name, ORDER)
        raise Invalid(
            f"NSM_MECHANISMS has {name}, which is no mechanism between nodes",
            remedy=f"did you mean {near}?" if near else f"there are {', '.join(ORDER)}",
        )
    reasons = {kind: _lack(kind, wanted, settings) for kind in ORDER if settings.tunnel_ip}
    reasons[VLAN] = lacks_vlans(settings)
    return {kind: reason for kind, reason in reasons.items() if reason}


def _lack(kind: str, wanted: set[str], settings: ForwarderSettings) -> str:
    if wanted and kind not in wanted:
        return "NSM_MECHANISMS leaves it out"
    if kind == SRV6 and not ipv6_beside(settings.tunnel_ip):
        return f"it needs an IPv6 address, and the link of NSM_TUNNEL_IP, {settings.tunnel_ip}, has none"
    return lacks(kind)


def _tunnel(
    kind: str, settings: ForwarderSettings, link_mtu: Callable[[], int], *, framed: bool
) -> MechanismPlugin:
    ip = settings.tunnel_ip
    if kind == VXLAN:
        return Vxlan(ip, port=settings.vxlan_port or VXLAN_PORT, link_mtu=link_mtu)
    if kind == WIREGUARD:
        return Wireguard(ip, link_mtu=link_mtu, secret=secrets.token_bytes(32))
    if kind == SRV6:
        return Srv6(ipv6_beside(ip), link_mtu=link_mtu, prefix=settings.srv6_prefix)
    if kind == GRE:
        return Gre(ip, link_mtu=link_mtu, framed=framed)
    return Geneve(ip, link_mtu=link_mtu)


def by_priority(found: Sequence[MechanismPlugin], priority: Sequence[str]) -> list[MechanismPlugin]:
    """Return mechanisms with those of ``priority`` (types) in front, in that order."""
    wanted = [name.upper() for name in priority]
    unknown = [name for name in wanted if all(plugin.type != name for plugin in found)]
    if unknown:
        log.warning("NSM_MECHANISM_PRIORITY has types that are not here", types=unknown)
    return sorted(found, key=lambda plugin: [*wanted, plugin.type].index(plugin.type))


def described(
    labels: dict[str, str], mechanisms: Sequence[MechanismPlugin], missing: dict[str, str] | None = None
) -> dict[str, str]:
    """Return a forwarder's labels with its mechanisms among them, and those that are missing."""
    found = {**labels, MECHANISMS: ".".join(plugin.type for plugin in mechanisms)}
    if missing:
        found[LACKS] = "; ".join(f"{kind}: {reason}" for kind, reason in missing.items())
    return found
