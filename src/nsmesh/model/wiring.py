"""From a connection's context to the ports of its wire: addresses, routes, rules, neighbours.

Pure. The client's interface (side CLIENT) gets what the context calls ``src``, the endpoint's ``dst``.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

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
from nsmesh.model.wiring_texts import (
    Address,
    Interface,
    Network,
    WiringError,
    interface_of,
    parse_address,
    parse_interfaces,
    parse_mac,
    parse_ports,
    parse_prefix,
    parse_protocol,
)

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


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
    src = parse_interfaces(ip.src_ip_addrs, "src_ip_addrs")
    dst = parse_interfaces(ip.dst_ip_addrs, "dst_ip_addrs")
    own, peers = (src, dst) if client else (dst, src)
    ethernet = context.ethernet_context
    return KernelPort(
        netns,
        name,
        mac=parse_mac(ethernet.src_mac, "src_mac") if client else parse_mac(ethernet.dst_mac, "dst_mac"),
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
    return _acquainted(port, own, (interface.text for interface in parse_interfaces(*far)), tunnel.peer_mac)


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
    prefix = parse_prefix(message.prefix, field)
    if not message.nextHop:
        return Route(prefix.text, _gateway(prefix.network, peers))
    via = parse_address(message.nextHop, f"nextHop of {field} {message.prefix}")
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
    prefix = parse_prefix(source, "a policy's from") if source else None
    default = _DEFAULT[prefix.network.version if prefix else 4]
    messages = list(policy.routes) or [RouteMessage(prefix=default)]
    return PolicyRule(
        source=prefix.text if prefix else "",
        protocol=parse_protocol(policy.proto),
        source_ports=parse_ports(policy.src_port, "src_port"),
        destination_ports=parse_ports(policy.dst_port, "dst_port"),
        routes=tuple(_route(message, peers, "a policy's routes") for message in messages),
    )


def _neighbours(messages: Iterable[IpNeighbor], own: Sequence[Interface]) -> tuple[Neighbour, ...]:
    found: dict[Address, Neighbour] = {}
    for message in messages:
        address = parse_address(message.ip, "ip_neighbors")
        mac = parse_mac(message.hardware_address, f"ip_neighbors {message.ip}")
        if not mac:
            raise WiringError(f"ip_neighbors has {message.ip} without a hardware address")
        if not any(address == interface.ip for interface in own):
            found[address] = Neighbour(str(address), mac)
    return tuple(found.values())


def _acquainted(port: KernelPort, own_mac: str, peers: Iterable[str], mac: str) -> KernelPort:
    """Return the port, at ``own_mac``, with addresses of its peer (CIDR) as neighbours at ``mac``."""
    known = {neighbour.ip for neighbour in port.neighbours}
    met = [interface_of(address).ip_text for address in peers]
    neighbours = port.neighbours + tuple(Neighbour(ip, mac) for ip in met if ip not in known)
    return replace(port, mac=own_mac, neighbours=neighbours)


def derived_mac(connection_id: str, side: Side) -> str:
    """Return a locally administered MAC that is the same whenever the same wire is worked out again."""
    digest = hashlib.sha256(f"{connection_id} {side.value}".encode()).digest()
    return f"02:{digest[:5].hex(':')}"
