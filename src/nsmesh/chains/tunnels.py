"""Which mechanisms a forwarder has: local ones always, others where its settings and this kernel allow."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from nsmesh.chains.settings import ForwarderSettings
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.datapath.underlay import Underlay, lacks_vxlan
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.model.wire import VXLAN_PORT

log = structlog.get_logger()

MECHANISMS = "mechanisms"
"""Label of a forwarder in the registry: the types that it has, with dots between them."""


def mechanisms_of(settings: ForwarderSettings) -> list[MechanismPlugin]:
    """Return the mechanisms of a forwarder in the order in which it offers them.

    Raises Invalid for a tunnel address that is none.
    """
    found: list[MechanismPlugin] = [Kernel()]
    if settings.tunnel_ip:
        lack = lacks_vxlan()
        if lack:
            log.warning("no VXLAN: this kernel cannot make it", why=lack)
        else:
            underlay = Underlay(settings.tunnel_ip)
            found.append(
                Vxlan(settings.tunnel_ip, port=settings.vxlan_port or VXLAN_PORT, link_mtu=underlay.mtu)
            )
    else:
        log.info("wires to other nodes are not made: NSM_TUNNEL_IP is not set")
    return by_priority(found, settings.mechanism_priority)


def by_priority(found: Sequence[MechanismPlugin], priority: Sequence[str]) -> list[MechanismPlugin]:
    """Return mechanisms with those of ``priority`` (types) in front, in that order."""
    wanted = [name.upper() for name in priority]
    unknown = [name for name in wanted if all(plugin.type != name for plugin in found)]
    if unknown:
        log.warning("NSM_MECHANISM_PRIORITY has types that are not here", types=unknown)
    return sorted(found, key=lambda plugin: [*wanted, plugin.type].index(plugin.type))


def described(labels: dict[str, str], mechanisms: Sequence[MechanismPlugin]) -> dict[str, str]:
    """Return a forwarder's labels with its mechanisms among them."""
    return {**labels, MECHANISMS: ".".join(plugin.type for plugin in mechanisms)}
