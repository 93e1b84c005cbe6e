"""The ICMP responder: gives a client an address and answers its pings. The smallest useful endpoint.

The kernel answers the pings; what is left to do is to give addresses out, and whatever else a client is to
be told about its wire. Other endpoints that end a path build on these options. Its use:
docs/reference/endpoints/icmp-responder.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from nsmesh.core.element import Element
from nsmesh.core.errors import Invalid
from nsmesh.elements.dns_context import DnsContext
from nsmesh.elements.ipam import Ipam
from nsmesh.elements.policy_route import PolicyRoutes
from nsmesh.endpoints.options import prefix_groups, reading, structure
from nsmesh.model.messages import DNSConfig, PolicyRoute
from nsmesh.model.settings import Seconds

_POLICY_FIELDS = ("from", "proto", "dstport", "srcport", "routes")


def ipam_policy(value: object) -> str:
    """Read ``polite`` or ``strict``; raises ValueError."""
    if value not in ("polite", "strict"):
        raise ValueError(f"{value!r} is neither polite nor strict")
    return str(value)


def dns_configs(value: object) -> tuple[DNSConfig, ...]:
    """Read a list of mappings with ``dns_server_ips`` and ``search_domains``; raises ValueError."""
    items = structure(value) or []
    if not isinstance(items, list):
        raise ValueError(f"{items!r} is not a list")  # noqa: TRY004 - a mistake in text, not in a type
    out = []
    for item in items:
        if not isinstance(item, Mapping) or set(item) - {"dns_server_ips", "search_domains"}:
            raise ValueError(f"{item!r} is no mapping of dns_server_ips and search_domains")
        out.append(DNSConfig(**{key: [str(text) for text in texts or []] for key, texts in item.items()}))
    return tuple(out)


@dataclass(frozen=True, kw_only=True)
class ResponderOptions:
    """What an endpoint tells the clients that it ends the path of."""

    cidr_prefix: tuple[tuple[str, ...], ...] = field(
        default=(("169.254.0.0/16",),), metadata=reading(prefix_groups, "groups of prefixes")
    )
    """Prefixes to give addresses from: one pair of addresses from each group, as in [a,b],[c]."""
    ipam_policy: str = field(default="polite", metadata=reading(ipam_policy, "polite or strict"))
    """What happens to addresses that a client brings along: polite keeps those of elsewhere, strict none."""
    dns_configs: tuple[DNSConfig, ...] = field(default=(), metadata=reading(dns_configs, "list of mappings"))
    """Name servers for the client: a list of mappings with dns_server_ips and search_domains."""
    idle_timeout: Seconds = Seconds(0)
    """Time without any connection after which the endpoint ends; 0: never."""
    pbr_config_path: str = "/etc/policy-based-routing/config.yaml"
    """YAML file that says which of the client's traffic goes through the wire; it may be missing."""

    def elements(self) -> tuple[Element, ...]:
        """Return what stands in the endpoint's chain for these options. Raises Invalid."""
        mode = cast('Literal["polite", "strict"]', self.ipam_policy)
        policies = read_policies(Path(self.pbr_config_path)) if self.pbr_config_path else ()
        return (Ipam(self.cidr_prefix, mode), PolicyRoutes(policies), DnsContext(self.dns_configs))


def mechanism_type(value: object) -> str:
    """Read ``kernel`` or ``memif``; raises ValueError."""
    if value not in ("kernel", "memif"):
        raise ValueError(f"{value!r} is neither kernel nor memif")
    return str(value)


@dataclass(frozen=True, kw_only=True)
class IcmpResponderOptions(ResponderOptions):
    """What the ICMP responder tells its clients, and what its wires are."""

    mechanism: str = field(default="kernel", metadata=reading(mechanism_type, "kernel or memif"))
    """What its wires end in: an interface, or a memif socket at which the endpoint itself answers."""


def read_policies(path: Path) -> tuple[PolicyRoute, ...]:
    """Read a policy routing file; one that is not there is empty. Raises Invalid with file and item."""
    try:
        items = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"the policy routes in {path} cannot be read: {error}") from None
    if not isinstance(items or [], list):
        raise Invalid(f"{path} holds no list of policy routes")
    return tuple(_policy(item, f"{path}, item {number}") for number, item in enumerate(items or [], 1))


def _policy(item: Any, where: str) -> PolicyRoute:
    folded = {str(key).lower(): value for key, value in item.items()} if isinstance(item, Mapping) else {}
    if not folded or set(folded) - set(_POLICY_FIELDS):
        raise Invalid(f"{where}: a policy route is a mapping of {', '.join(_POLICY_FIELDS)}")
    policy = PolicyRoute(
        proto=str(folded.get("proto") or ""),
        dst_port=str(folded.get("dstport") or ""),
        src_port=str(folded.get("srcport") or ""),
    )
    setattr(policy, "from", str(folded.get("from") or ""))
    for route in folded.get("routes") or []:
        fields = (
            {str(key).lower(): str(value) for key, value in route.items()}
            if isinstance(route, Mapping)
            else {}
        )
        if "prefix" not in fields or set(fields) - {"prefix", "nexthop"}:
            raise Invalid(f"{where}: a route is a mapping of prefix and nexthop")
        policy.routes.add(prefix=fields["prefix"], nextHop=fields.get("nexthop", ""))
    return policy
