"""From a connection's context to the ports of its wire: addresses, routes, rules, neighbours.

Pure. The client's interface (side CLIENT) gets what the context calls ``src``, the endpoint's ``dst``.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from nsmesh.model.messages import IP, Connection, IPContext, IpNeighbor, PolicyRoute
from nsmesh.model.messages import Route as RouteMessage
from nsmesh.model.wire import (
    CrossConnect,
    KernelPort,
    MemifPort,
    Neighbour,
    PolicyRule,
    Port,
    Route,
    TunnelPort,
    VhostUserPort,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_KEPT = 1024
"""Addresses of which the parsed form is remembered: each comes several times in the life of a wire, and with
each refresh. They take half a MB."""

_ip_address = lru_cache(_KEPT)(ipaddress.ip_address)


class Interface(NamedTuple):
    """An address with its prefix length, and all that is asked of it, worked out once."""

    text: str
    """The address with its prefix length, as the library writes it."""
    ip: Address
    ip_text: str
    host: str
    """The prefix of this address alone."""
    network: Network


@lru_cache(_KEPT)
def _ip_interface(text: str) -> Interface:
    parsed = ipaddress.ip_interface(text)
    ip = parsed.ip
    ip_text = str(ip)
    return Interface(str(parsed), ip, ip_text, f"{ip_text}/{ip.max_prefixlen}", parsed.network)


class Prefix(NamedTuple):
    """A prefix, and how the library writes it."""

    text: str
    network: Network


@lru_cache(_KEPT)
def _ip_network(text: str) -> Prefix:
    network = ipaddress.ip_network(text, strict=False)
    return Prefix(str(network), network)


class WiringError(ValueError):
    """A connection's context that cannot be wired; the text names the field and the value."""


class Side(enum.Enum):
    """Which end of a wire."""

    CLIENT = "client"
    ENDPOINT = "endpoint"


def kernel_port(
    connection: Connection, side: Side, netns: str, name: str, *, numbered: bool = True
) -> KernelPort:
    """Return one end of the wire as a kernel interface ``name`` in the namespace at path ``netns``.

    ``numbered`` false leaves out all that belongs to IP, and the MAC: a transparent function must not answer
    for the ends that it stands between. Raises :class:`WiringError`.
    """
    context = connection.context
    if not numbered or not connection.HasField("context"):
        return KernelPort(netns, name, mtu=context.MTU, numbered=numbered)
    client = side is Side.CLIENT
    ip = context.ip_context
    src = _interfaces(ip.src_ip_addrs, "src_ip_addrs")
    dst = _interfaces(ip.dst_ip_addrs, "dst_ip_addrs")
    own, peers = (src, dst) if client else (dst, src)
    ethernet = context.ethernet_context
    return KernelPort(
        netns,
        name,
        mac=_mac(ethernet.src_mac, "src_mac") if client else _mac(ethernet.dst_mac, "dst_mac"),
        mtu=context.MTU,
        addresses=tuple(interface.text for interface in own),
        routes=_routes(ip, own, peers, client=client),
        neighbours=_neighbours(ip.ip_neighbors, own),
        rules=tuple(_rule(policy, peers) for policy in ip.policies) if client else (),
    )


def cross_connect(connection: Connection, client: Port, endpoint: Port) -> CrossConnect:
    """Return the wire between two ports.

    A wire for payload IP carries no ARP and no neighbour discovery, so each end knows the other's addresses
    as permanent neighbours, unless one of them stands for somebody behind it. An empty payload means IP, as
    in the registry. Where one end leads to another node, the forwarder there must have told its MAC; else
    neighbours find each other as on any other link.

    Raises :class:`WiringError` where both ports lead to other nodes.
    """
    payload = connection.payload or IP
    match client, endpoint:
        case KernelPort(), KernelPort():
            if payload == IP and client.numbered and endpoint.numbered:
                near = client.mac or derived_mac(connection.id, Side.CLIENT)
                far = endpoint.mac or derived_mac(connection.id, Side.ENDPOINT)
                client, endpoint = (
                    _acquainted(client, near, endpoint.addresses, far),
                    _acquainted(endpoint, far, client.addresses, near),
                )
        case KernelPort(), TunnelPort():
            client = _this_side(connection, client, endpoint, Side.CLIENT, payload)
        case TunnelPort(), KernelPort():
            endpoint = _this_side(connection, endpoint, client, Side.ENDPOINT, payload)
        case (MemifPort() | VhostUserPort(), _) | (_, MemifPort() | VhostUserPort()):
            pass  # whoever is behind a socket asks for his neighbours himself
        case _:
            raise WiringError("both ends lead to other nodes: there is nothing to wire on this one")
    return CrossConnect(connection.id, client, endpoint, payload)


def own_mac(connection: Connection, side: Side) -> str:
    """Return the MAC that this node's end of a wire to another node shall have; empty: any.

    It is derived from the connection's id where the context gives none, and given for payload IP alone:
    the other node needs it for its permanent neighbours.
    """
    ethernet = connection.context.ethernet_context
    asked = ethernet.src_mac if side is Side.CLIENT else ethernet.dst_mac
    if (connection.payload or IP) != IP:
        return ""
    return asked.lower() or derived_mac(connection.id, side)


def _this_side(
    connection: Connection, port: KernelPort, tunnel: TunnelPort, side: Side, payload: str
) -> KernelPort:
    """Return the interface on this node of a wire that goes on through ``tunnel``."""
    fitting = [mtu for mtu in (port.mtu, tunnel.mtu) if mtu]
    port = replace(port, mtu=min(fitting, default=0))
    if not tunnel.frames:
        return replace(port, mac="", neighbours=())
    if payload != IP or not port.numbered:
        return port
    # what the other node was told counts; who answers tells it afterwards, see TunnelPlugin.introduce
    told = (tunnel.mac, port.mac) if side is Side.CLIENT else (port.mac, tunnel.mac)
    own = told[0] or told[1] or derived_mac(connection.id, side)
    if not tunnel.peer_mac:
        return replace(port, mac=own)
    ip = connection.context.ip_context
    far = (ip.dst_ip_addrs, "dst_ip_addrs") if side is Side.CLIENT else (ip.src_ip_addrs, "src_ip_addrs")
    return _acquainted(port, own, (interface.text for interface in _interfaces(*far)), tunnel.peer_mac)


def _interfaces(texts: Iterable[str], field: str) -> list[Interface]:
    found: dict[str, Interface] = {}
    for text in texts:
        try:
            interface = _ip_interface(text)
        except ValueError as error:
            raise WiringError(f"{field} has {text!r}, which is no address with a prefix length") from error
        if "/" not in text:
            raise WiringError(f"{field} has {text!r} without a prefix length, such as {interface.text}")
        found[interface.text] = interface
    return list(found.values())


def _network(text: str, field: str) -> Prefix:
    try:
        prefix = _ip_network(text)
    except ValueError as error:
        raise WiringError(f"{field} has {text!r}, which is no prefix such as 10.0.0.0/24") from error
    if "/" not in text:
        raise WiringError(f"{field} has {text!r} without a prefix length, such as {prefix.text}")
    return prefix


def _address(text: str, field: str) -> Address:
    try:
        return _ip_address(text)
    except ValueError as error:
        raise WiringError(f"{field} has {text!r}, which is no IP address") from error


def _mac(text: str, field: str) -> str:
    if not text:
        return ""
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise WiringError(f"{field} has {text!r}, which is no MAC address of one interface")
    return text.lower()


def _routes(
    ip: IPContext, own: Sequence[Interface], peers: Sequence[Interface], *, client: bool
) -> tuple[Route, ...]:
    # one route per prefix: what the endpoint asks for stands above the plain route to the peer
    routes = {
        prefix: Route(prefix)
        for prefix in (peer.host for peer in peers if not any(peer.ip in mine.network for mine in own))
    }
    asked, field = (ip.src_routes, "src_routes") if client else (ip.dst_routes, "dst_routes")
    for message in asked:
        route = _route(message, peers, field)
        routes[route.prefix] = route
    return tuple(routes.values())


def _route(message: RouteMessage, peers: Sequence[Interface], field: str) -> Route:
    prefix = _network(message.prefix, field)
    if not message.nextHop:
        return Route(prefix.text, _gateway(prefix.network, peers))
    via = _address(message.nextHop, f"nextHop of {field} {message.prefix}")
    if via.version != prefix.network.version:
        raise WiringError(f"{field} has {message.prefix} by way of {via}, which is of the other IP family")
    return Route(prefix.text, str(via))


def _gateway(prefix: Network, peers: Sequence[Interface]) -> str:
    """Return the peer as gateway of a route without a next hop, unless it leads into the peer's own net."""
    if any(prefix.network_address in peer.network for peer in peers):
        return ""
    return next((peer.ip_text for peer in peers if peer.ip.version == prefix.version), "")


def _rule(policy: PolicyRoute, peers: Sequence[Interface]) -> PolicyRule:
    source = getattr(policy, "from")
    prefix = _network(source, "a policy's from") if source else None
    default = _DEFAULT[prefix.network.version if prefix else 4]
    messages = list(policy.routes) or [RouteMessage(prefix=default)]
    return PolicyRule(
        source=prefix.text if prefix else "",
        protocol=_protocol(policy.proto),
        source_ports=_ports(policy.src_port, "src_port"),
        destination_ports=_ports(policy.dst_port, "dst_port"),
        routes=tuple(_route(message, peers, "a policy's routes") for message in messages),
    )


def _protocol(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or int(text) > 255:
        raise WiringError(f"a policy's proto has {text!r}, which is no IP protocol number such as 6")
    return int(text)


def _ports(text: str, field: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = _PORTS.fullmatch(text)
    first = int(found[1]) if found else 1
    last = int(found[2] or found[1]) if found else 0
    if not first <= last <= 65535:
        raise WiringError(
            f"a policy's {field} has {text!r}, which is neither a port nor a range such as 80-90"
        )
    return first, last


def _neighbours(messages: Iterable[IpNeighbor], own: Sequence[Interface]) -> tuple[Neighbour, ...]:
    found: dict[Address, Neighbour] = {}
    for message in messages:
        address = _address(message.ip, "ip_neighbors")
        mac = _mac(message.hardware_address, f"ip_neighbors {message.ip}")
        if not mac:
            raise WiringError(f"ip_neighbors has {message.ip} without a hardware address")
        if not any(address == interface.ip for interface in own):
            found[address] = Neighbour(str(address), mac)
    return tuple(found.values())


def _acquainted(port: KernelPort, own_mac: str, peers: Iterable[str], mac: str) -> KernelPort:
    """Return the port, at ``own_mac``, with addresses of its peer (CIDR) as neighbours at ``mac``."""
    known = {neighbour.ip for neighbour in port.neighbours}
    met = [_ip_interface(address).ip_text for address in peers]
    neighbours = port.neighbours + tuple(Neighbour(ip, mac) for ip in met if ip not in known)
    return replace(port, mac=own_mac, neighbours=neighbours)


def derived_mac(connection_id: str, side: Side) -> str:
    """Return a locally administered MAC that is the same whenever the same wire is worked out again."""
    digest = hashlib.sha256(f"{connection_id} {side.value}".encode()).digest()
    return f"02:{digest[:5].hex(':')}"
