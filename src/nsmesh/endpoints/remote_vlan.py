"""The remote VLAN: says which VLAN a network service is and gives addresses out. No frame goes to it.

The forwarder of each client puts it onto that VLAN, through an interface of the client's node. Its use:
docs/reference/endpoints/remote-vlan.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Refused
from nsmesh.elements.subnet_ipam import SubnetIpam
from nsmesh.endpoints.options import reading
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.settings import Seconds
from nsmesh.model.vlan import VIA, Subnet, VlanService, parse_services, parse_subnets, service_from


def read_services(value: object) -> tuple[VlanService, ...]:
    """Read services: text as in NSM, or a list of such texts and of mappings; raises ValueError."""
    items = value if isinstance(value, list) else [value]
    found: list[VlanService] = []
    for item in items:
        if isinstance(item, Mapping):
            found.append(service_from(item))
        elif isinstance(item, str):
            found += parse_services(item)
        else:
            raise ValueError(f"{item!r} is no service")  # noqa: TRY004 - a mistake in text, not in a type
    names = [service.name for service in found]
    for name in {name for name in names if names.count(name) > 1}:
        raise ValueError(f"service {name} is there more than once")
    return tuple(found)


def read_subnets(value: object) -> tuple[Subnet, ...]:
    """Read networks, from a list or from text with commas; raises ValueError."""
    items = value if isinstance(value, list) else str(value).split(",")
    return parse_subnets(str(item).strip() for item in items if str(item).strip())


@dataclass(frozen=True, kw_only=True)
class RemoteVlanOptions:
    """Which VLANs there are, and the addresses on them."""

    services: tuple[VlanService, ...] = field(
        default=(), metadata=reading(read_services, "NAME { vlan: TAG; via: NAME; labels: a=b&c=d }, ...")
    )
    """Services, each a VLAN: its tag (0: none), by which way (via) forwarders reach it, and its labels."""
    cidr_prefix: tuple[Subnet, ...] = field(
        default=parse_subnets(["169.254.0.0/16"]),
        metadata=reading(read_subnets, "networks, or ranges FIRST-LAST/LENGTH with ; between them"),
    )
    """Networks to give addresses from: at most one of IPv4 and one of IPv6; the same on each VLAN."""
    idle_timeout: Seconds = Seconds(0)
    """Time without any connection after which the endpoint ends; 0: never."""

    def elements(self) -> Sequence[Element]:
        """Return what stands in the endpoint's chain."""
        known = {service.name: service for service in self.services}
        return (RemoteVlan(known), SubnetIpam(self.cidr_prefix, lambda name: known[name].domain))

    @property
    def tags(self) -> dict[str, int]:
        """The VLAN of each service."""
        return {service.name: service.vlan for service in self.services}

    @property
    def offers(self) -> dict[str, Mapping[str, str]]:
        """The labels of each service."""
        return {service.name: service.labels for service in self.services}


class RemoteVlan(Element):
    """Answers with the way to the VLAN as the only label, and leaves the MTU to the forwarder.

    After:  Begin
    Writes: labels and MTU of the answer
    Close:  passes on
    """

    after = ("Begin",)

    def __init__(self, services: Mapping[str, VlanService]) -> None:
        self._services = services

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then say which way."""
        name = request.connection.network_service
        service = self._services.get(name)
        if service is None:
            raise Refused(
                f"network service {name} is no VLAN of this endpoint",
                remedy=f"NSM_SERVICES, or the option services, has {', '.join(self._services) or 'none'}",
            )
        answer = await next.request(call, request)
        answer.labels.clear()
        answer.labels[VIA] = service.via
        answer.context.MTU = 0
        return answer


def listed(options: RemoteVlanOptions) -> dict[str, list[dict[str, Any]]]:
    """Return the services as a table, for ``nsm describe endpoint``."""
    return {"vlans": [{"service": one.name, "vlan": one.vlan, "via": one.via} for one in options.services]}
