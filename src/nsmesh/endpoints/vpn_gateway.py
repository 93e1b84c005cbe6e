"""The VPN gateway: ends the wires of clients and leads what is behind the tunnel, and nothing else, into it.

Everything happens in the process's own network namespace: it forwards, clients hide behind the tunnel's own
address (masquerade), and TCP is told a segment size that fits the tunnel. Its use:
docs/reference/endpoints/vpn-gateway.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.core.metrics import Gauge, ReadCounter
from nsmesh.endpoints import interfaces, nft, wireguard_keys
from nsmesh.endpoints.icmp_responder import ResponderOptions
from nsmesh.endpoints.options import reading, structure
from nsmesh.endpoints.wireguard import parse_peers, routes, tunnel_from, with_key
from nsmesh.endpoints.wireguard_device import Device, tunnel_up
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.wireguard import MTU, PORT, PeerStatus, Tunnel, TunnelPeer

TABLE = "nsm_vpn"
"""nftables table of family inet that belongs to the gateway."""

PEER_KEY = 5.0
"""Seconds that the public key of a peer may take to come: ends that start together wait for each other."""

_HEADERS = {"ip": 40, "ip6": 60}
"""IP and TCP headers without options, bytes."""

TRAFFIC = ReadCounter(
    "nsm_vpn_gateway_bytes", "Bytes exchanged with a peer of the tunnel.", ("peer", "direction")
)
HANDSHAKE = Gauge(
    "nsm_vpn_gateway_handshake_seconds",
    "When the last handshake with a peer was, seconds since the epoch.",
    ("peer",),
)


def read_peers(value: object) -> tuple[TunnelPeer, ...]:
    """Read the option ``peers``, from YAML or a variable."""
    return parse_peers(structure(value))


@dataclass(frozen=True, kw_only=True)
class TunnelOptions:
    """A WireGuard interface."""

    interface: str = "wg0"
    """Name of the WireGuard interface."""
    private_key_file: str = ""
    """File with the private key, base64, readable by its owner alone; made if it is not there."""
    addresses: tuple[str, ...] = ()
    """Addresses of the WireGuard interface, in CIDR."""
    listen_port: int = PORT
    """UDP port of the tunnel; 0: any free one."""
    mtu: int = MTU
    """MTU of the WireGuard interface, bytes."""
    peers: tuple[TunnelPeer, ...] = field(default=(), metadata=reading(read_peers, "list of peers"))
    """The other ends: public_key or public_key_file, endpoint, allowed_ips, persistent_keepalive."""

    def tunnel(self) -> Tunnel:
        """Return the tunnel that the options describe, with its key read. Raises Invalid and others."""
        if not self.private_key_file:
            raise Invalid("the tunnel has no key", remedy="set private_key_file; the file is made if need be")
        key = wireguard_keys.ensure(Path(self.private_key_file))
        names = ("interface", "addresses", "listen_port", "mtu")
        peers = tuple(with_key(peer, PEER_KEY) for peer in self.peers)
        return tunnel_from({**{name: getattr(self, name) for name in names}, "peers": peers}, key)


@dataclass(frozen=True, kw_only=True)
class VpnGatewayOptions(TunnelOptions, ResponderOptions):
    """A VPN gateway. What its peers allow is what clients get a route to."""


class VpnGateway(Element):
    """Gives each client a route to what is behind the tunnel; holds the tunnel while its chain runs.

    After:  Ipam
    Writes: src_routes, one for each prefix behind the tunnel
    Leaves: the tunnel, an nftables table and forwarding, until the chain stops
    Close:  passes on
    """

    after = ("Ipam",)

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._device: Device | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Raise the tunnel and forward into it. Raises MeshError where the machine does not let us."""
        await nft.apply(forwarding(self._tunnel))
        try:
            interfaces.set_sysctl("ipv4/ip_forward", "1")
            if interfaces.HAS_IPV6:
                interfaces.set_sysctl("ipv6/conf/all/forwarding", "1")
            async with tunnel_up(self.scope, self._tunnel) as self._device:
                with (
                    TRAFFIC.reading(self._traffic),
                    HANDSHAKE.reading(self._handshakes),
                ):
                    yield self
        finally:
            await nft.apply(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Write the routes, pass on."""
        ip = request.connection.context.ip_context
        present = {route.prefix for route in ip.src_routes}
        for prefix in routes(self._tunnel):
            if prefix not in present:
                ip.src_routes.add(
                    prefix=prefix
                )  # the next hop is ours: the endpoint's address of that family
        return await next.request(call, request)

    async def _traffic(self) -> dict[tuple[str, ...], float]:
        found = await self.peers()
        return {
            (peer.public_key, way): count
            for peer in found
            for way, count in (("received", peer.received), ("sent", peer.sent))
        }

    async def _handshakes(self) -> dict[tuple[str, ...], float]:
        found = await self.peers()
        return {(peer.public_key,): peer.last_handshake for peer in found if peer.last_handshake is not None}

    async def peers(self) -> list[PeerStatus]:
        """Return how the tunnel's peers are. Raises Unavailable."""
        if self._device is None:
            raise Unavailable("the tunnel is not up yet", remedy="start the endpoint's chain first")
        return await self._device.peers()


def forwarding(tunnel: Tunnel) -> str:
    """Return the nft program of a gateway: forward into the tunnel only, masquerade, clamp segment sizes."""
    name = f'"{tunnel.name}"'
    lines = [
        f"add table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"add table inet {TABLE}",
        f"add chain inet {TABLE} forward {{ type filter hook forward priority 0; policy drop; }}",
        f"add chain inet {TABLE} clamp {{ type filter hook forward priority -150; }}",
        f"add chain inet {TABLE} nat {{ type nat hook postrouting priority 100; }}",
        *(f"add rule inet {TABLE} forward {rule}" for rule in _forward(name)),
        *(f"add rule inet {TABLE} clamp {rule}" for rule in _clamp(name, tunnel.mtu)),
        f"add rule inet {TABLE} nat oifname {name} masquerade",
    ]
    return "\n".join(lines) + "\n"


def _forward(name: str) -> Iterable[str]:
    yield "ct state invalid counter drop"
    yield "ct state established,related counter accept"
    yield f"iifname != {name} oifname {name} counter accept"
    yield "counter"


def _clamp(name: str, mtu: int) -> Iterable[str]:
    # the kernel lowers a segment size by this, and never raises one
    for ip, headers in _HEADERS.items():
        protocol = f"meta nfproto ipv{4 if ip == 'ip' else 6}"
        for direction in ("iifname", "oifname"):
            yield f"{protocol} {direction} {name} tcp flags syn tcp option maxseg size set {mtu - headers}"
