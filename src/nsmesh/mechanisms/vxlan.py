"""VXLAN: the wire goes on to another node, as frames in UDP over the underlay."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from random import Random, SystemRandom

from nsmesh.core.errors import Invalid
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import REMOTE, VXLAN, Connection, Mechanism
from nsmesh.model.wire import VXLAN_PORT, VxlanPort
from nsmesh.model.wiring import Side

SRC_IP, SRC_PORT = "src_ip", "src_port"
DST_IP, DST_PORT = "dst_ip", "dst_port"
ORIG_SRC_IP, ORIG_DST_IP = "orig_src_ip", "orig_dst_ip"
SRC_MAC, DST_MAC = "src_hw_addr", "dst_hw_addr"
VNI, MTU = "vni", "MTU"

VNI_LIMIT = 1 << 24
HEADERS = {4: 50, 6: 70}
"""Bytes around a packet, by IP version of the underlay: IP, UDP, VXLAN, the frame's own Ethernet header."""

Address = IPv4Address | IPv6Address


class Vxlan:
    """Negotiates VXLAN tunnels between two forwarders.

    ``tunnel_ip`` is this node's address in the underlay and ``port`` the UDP port on which it listens.
    ``link_mtu`` returns the MTU of the underlay's link in bytes; it may raise what keeps it from that.
    ``random`` chooses among tunnels when one is taken.

    Whoever asks sets ``src_*``, whoever answers ``dst_*`` and the VNI: an even one where src is not above
    dst, else an odd one, so two nodes that ask each other never choose the same.
    """

    type = VXLAN
    cls = REMOTE

    def __init__(
        self,
        tunnel_ip: str,
        *,
        port: int = VXLAN_PORT,
        link_mtu: Callable[[], int],
        random: Random | None = None,
    ) -> None:
        self._ip = _address(tunnel_ip, "this node's tunnel address")
        self._port = port
        self._link_mtu = link_mtu
        self._random = random or SystemRandom()

    def offer(self, connection: Connection) -> Mechanism:  # noqa: ARG002 - the face of a mechanism
        """Return REMOTE VXLAN with this node as its source."""
        parameters = {SRC_IP: str(self._ip), SRC_PORT: str(self._port), MTU: str(self._own_mtu())}
        return Mechanism(cls=REMOTE, type=VXLAN, parameters=parameters)

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with this node as its destination, a VNI, and the smaller MTU of both.

        The VNI follows from the connection: who asks again, after a restart too, gets the same.
        """
        mechanism = copy_of(offered)
        parameters = mechanism.parameters
        source = _address(parameters.get(SRC_IP, ""), f"the VXLAN parameter {SRC_IP}")
        if source.version != self._ip.version:
            raise Invalid(
                f"a VXLAN tunnel from {source} to {self._ip} would join two IP families",
                remedy="give both forwarders an NSM_TUNNEL_IP of one family",
            )
        parameters[SRC_PORT] = str(_number(parameters, SRC_PORT, 1, 65535, VXLAN_PORT))
        parameters[DST_IP] = str(self._ip)
        parameters[DST_PORT] = str(self._port)
        parameters[MTU] = str(self.largest(mechanism))
        if not _number(parameters, VNI, 0, VNI_LIMIT - 1, 0):
            seeded = Random(f"{connection.id} {source}")  # noqa: S311 - no secret
            parameters[VNI] = str(_chosen(mechanism, seeded))
        return mechanism

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> VxlanPort:  # noqa: ARG002 - likewise
        """Return the way to the other node: to ``src`` where the client's side is there, else to ``dst``."""
        asked = side is Side.CLIENT
        parameters = mechanism.parameters
        ip, port, far_mac, own_mac = (
            (SRC_IP, SRC_PORT, SRC_MAC, DST_MAC) if asked else (DST_IP, DST_PORT, DST_MAC, SRC_MAC)
        )
        return VxlanPort(
            vni=_number(parameters, VNI, 1, VNI_LIMIT - 1),
            local=str(self._ip),
            remote=str(_address(parameters.get(ip, ""), f"the VXLAN parameter {ip}")),
            local_port=self._port,
            remote_port=_number(parameters, port, 1, 65535, VXLAN_PORT),
            mtu=self.largest(mechanism),
            mac=parameters.get(own_mac, ""),
            peer_mac=parameters.get(far_mac, ""),
        )

    def largest(self, mechanism: Mechanism) -> int:
        """Return the smaller of what fits through this node's link and what the other node says."""
        own = self._own_mtu()
        return min(own, _number(mechanism.parameters, MTU, 68, 65535, own))

    def introduce(self, mechanism: Mechanism, side: Side, mac: str) -> None:
        """Write the MAC of the interface on ``side``; an empty one takes it back."""
        key = SRC_MAC if side is Side.CLIENT else DST_MAC
        mechanism.parameters.pop(key, None)
        if mac:
            mechanism.parameters[key] = mac

    def another(self, mechanism: Mechanism) -> Mechanism:
        """Return the mechanism with a random VNI, other than the one that it has."""
        changed = copy_of(mechanism)
        while changed.parameters.get(VNI, "") == mechanism.parameters.get(VNI, ""):
            changed.parameters[VNI] = str(_chosen(mechanism, self._random, here=str(self._ip)))
        return changed

    def describe(self, mechanism: Mechanism) -> str:
        """Return ``VXLAN/`` and the VNI."""
        return f"{VXLAN}/{mechanism.parameters.get(VNI, '')}"

    def _own_mtu(self) -> int:
        return self._link_mtu() - HEADERS[self._ip.version]


def is_even(mechanism: Mechanism, here: str = "") -> bool:
    """Return whether the serving side's VNI has to be even; ``here`` stands for a destination not yet set.

    Addresses are compared as 16 bytes, those before a translation count. Without a source it is even,
    without a destination alone odd.
    """
    parameters = mechanism.parameters
    source = parameters.get(ORIG_SRC_IP, "") or parameters.get(SRC_IP, "")
    destination = parameters.get(ORIG_DST_IP, "") or parameters.get(DST_IP, "") or here
    if not source:
        return True
    if not destination:
        return False
    return _sixteen(source, SRC_IP) <= _sixteen(destination, DST_IP)


def _chosen(mechanism: Mechanism, random: Random, here: str = "") -> int:
    half = random.randrange(1, VNI_LIMIT // 2)
    return 2 * half if is_even(mechanism, here) else 2 * half + 1


def _sixteen(text: str, key: str) -> bytes:
    address = _address(text, f"the VXLAN parameter {key}")
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def _address(text: str, what: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        said = f"is {text!r}, which is no IP address" if text else "is missing"
        raise Invalid(
            f"{what} {said}", remedy="set NSM_TUNNEL_IP of each forwarder to its node's address"
        ) from None


def _number(
    parameters: Mapping[str, str], key: str, least: int, most: int, otherwise: int | None = None
) -> int:
    """Return a parameter's number, ``otherwise`` where it is absent; raises Invalid."""
    text = parameters.get(key, "")
    if not text and otherwise is not None:
        return otherwise
    if not text.isdecimal() or not text.isascii() or not least <= int(text) <= most:
        raise Invalid(
            f"the VXLAN parameter {key} is {text!r}, which is no number from {least} to {most}",
            remedy="look at the forwarder that the Request came from, or went to",
        )
    return int(text)
