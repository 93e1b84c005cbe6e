"""What the negotiation of tunnels has in common: parameters, the parity of numbers, whose half is whose.

Pure. A mechanism of cls REMOTE takes from here what it needs; see ``nsmesh/mechanisms``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from random import Random, SystemRandom

from nsmesh.core.errors import Invalid
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import PAYLOADS, REMOTE, Connection, Mechanism
from nsmesh.model.wiring import Side

SRC_IP, DST_IP = "src_ip", "dst_ip"
SRC_PORT, DST_PORT = "src_port", "dst_port"
ORIG_SRC_IP, ORIG_DST_IP = "orig_src_ip", "orig_dst_ip"
SRC_MAC, DST_MAC = "src_hw_addr", "dst_hw_addr"
MTU = "MTU"

LEAST_MTU, MOST_MTU = 68, 65535

Address = IPv4Address | IPv6Address


def ip_address(text: str, what: str) -> Address:
    """Return an address of the underlay; raises Invalid, naming ``what`` it is."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        said = f"is {text!r}, which is no IP address" if text else "is missing"
        raise Invalid(
            f"{what} {said}", remedy="set NSM_TUNNEL_IP of each forwarder to its node's address"
        ) from None


def address(mechanism: Mechanism, key: str) -> Address:
    """Return the address in a parameter; raises Invalid."""
    return ip_address(mechanism.parameters.get(key, ""), f"the {mechanism.type} parameter {key}")


def number(mechanism: Mechanism, key: str, least: int, most: int, otherwise: int | None = None) -> int:
    """Return a parameter's number, ``otherwise`` where it is absent; raises Invalid."""
    text = mechanism.parameters.get(key, "")
    if not text and otherwise is not None:
        return otherwise
    if not text.isdecimal() or not text.isascii() or not least <= int(text) <= most:
        raise Invalid(
            f"the {mechanism.type} parameter {key} is {text!r}, which is no number from {least} to {most}",
            remedy="look at the forwarder that the Request came from, or went to",
        )
    return int(text)


def is_even(mechanism: Mechanism, here: str = "") -> bool:
    """Return whether the serving side's number has to be even; ``here`` stands for a destination not yet set.

    Addresses are compared as 16 bytes, those before a translation count. Without a source it is even,
    without a destination alone odd.
    """
    parameters = mechanism.parameters
    source = ORIG_SRC_IP if parameters.get(ORIG_SRC_IP, "") else SRC_IP
    if not parameters.get(source, ""):
        return True
    destination = parameters.get(ORIG_DST_IP, "") or parameters.get(DST_IP, "") or here
    if not destination:
        return False
    there = ip_address(destination, f"the {mechanism.type} parameter {DST_IP}")
    return _sixteen(address(mechanism, source)) <= _sixteen(there)


def _sixteen(one: Address) -> bytes:
    return one.packed if one.version == 6 else b"\0" * 10 + b"\xff\xff" + one.packed


class Tunnelling:
    """The half of a tunnel's negotiation that is the same for all: addresses and the MTU.

    ``tunnel_ip`` is this node's address in the underlay. ``link_mtu`` returns the MTU of the underlay's link
    in bytes; it may raise what keeps it from that. ``random`` chooses among tunnels when one is taken.
    """

    type: str
    cls: str = REMOTE
    payloads: tuple[str, ...] = PAYLOADS
    headers: Mapping[int, int]
    """Bytes around a packet, by IP version of the underlay."""

    def __init__(self, tunnel_ip: str, *, link_mtu: Callable[[], int], random: Random | None = None) -> None:
        self.ip = ip_address(tunnel_ip, "this node's tunnel address")
        self._link_mtu = link_mtu
        self.random = random or SystemRandom()

    def offered(self, mechanism: Mechanism | None = None) -> Mechanism:
        """Return what an offer begins with: this node as its source, and the MTU."""
        made = mechanism or Mechanism(cls=REMOTE, type=self.type)
        made.parameters[SRC_IP] = str(self.ip)
        made.parameters[MTU] = str(self.own_mtu(made))
        return made

    def accepted(self, offered: Mechanism) -> Mechanism:
        """Return what an answer begins with: this node as its destination, and the smaller MTU of both."""
        made = copy_of(offered)
        source = address(made, SRC_IP)
        if source.version != self.ip.version:
            raise Invalid(
                f"a {self.type} tunnel from {source} to {self.ip} would join two IP families",
                remedy="give both forwarders an NSM_TUNNEL_IP of one family",
            )
        made.parameters[DST_IP] = str(self.ip)
        made.parameters[MTU] = str(self.largest(made))
        return made

    def remote(self, mechanism: Mechanism, side: Side) -> str:
        """Return the other node's address: ``src`` where the client's side is there, else ``dst``."""
        return str(address(mechanism, SRC_IP if side is Side.CLIENT else DST_IP))

    def macs(self, mechanism: Mechanism, side: Side) -> tuple[str, str]:
        """Return the MACs that were told: of the interface on this node and of the other's; or empty."""
        keys = (DST_MAC, SRC_MAC) if side is Side.CLIENT else (SRC_MAC, DST_MAC)
        return mechanism.parameters.get(keys[0], ""), mechanism.parameters.get(keys[1], "")

    def largest(self, mechanism: Mechanism) -> int:
        """Return the smaller of what fits through this node's link and what the other node says."""
        own = self.own_mtu(mechanism)
        return min(own, number(mechanism, MTU, LEAST_MTU, MOST_MTU, own))

    def own_mtu(self, mechanism: Mechanism) -> int:  # noqa: ARG002 - where the headers depend on it
        """Return what fits through this node's link, in bytes."""
        return self._link_mtu() - self.headers[self.ip.version]

    def introduce(self, mechanism: Mechanism, side: Side, mac: str) -> None:
        """Write the MAC of the interface on ``side``; an empty one takes it back."""
        key = SRC_MAC if side is Side.CLIENT else DST_MAC
        mechanism.parameters.pop(key, None)
        if mac:
            mechanism.parameters[key] = mac


class Numbered(Tunnelling):
    """A tunnel that has a number, which whoever answers chooses.

    An even one where src is not above dst, else an odd one: two nodes that ask each other never choose the
    same. The number follows from the connection: who asks again, after a restart too, gets the same.
    """

    key: str
    """The parameter that holds the number."""
    limit: int
    """Numbers are below it, and not 0."""

    def numbered(self, mechanism: Mechanism, connection: Connection) -> Mechanism:
        """Return an answer with a number; one that is there is kept. Raises Invalid."""
        if not number(mechanism, self.key, 0, self.limit - 1, 0):
            seeded = Random(f"{connection.id} {address(mechanism, SRC_IP)}")  # noqa: S311 - no secret
            mechanism.parameters[self.key] = str(self._chosen(mechanism, seeded))
        return mechanism

    def its_number(self, mechanism: Mechanism) -> int:
        """Return the number of a tunnel that was agreed on; raises Invalid."""
        return number(mechanism, self.key, 1, self.limit - 1)

    def another(self, mechanism: Mechanism, side: Side = Side.CLIENT) -> Mechanism:  # noqa: ARG002 - the face
        """Return the mechanism with a random number, other than the one that it has."""
        changed = copy_of(mechanism)
        while changed.parameters.get(self.key, "") == mechanism.parameters.get(self.key, ""):
            changed.parameters[self.key] = str(self._chosen(mechanism, self.random, here=str(self.ip)))
        return changed

    def describe(self, mechanism: Mechanism) -> str:
        """Return the type and the number, as ``VXLAN/4711``."""
        return f"{self.type}/{mechanism.parameters.get(self.key, '')}"

    def _chosen(self, mechanism: Mechanism, random: Random, here: str = "") -> int:
        half = random.randrange(1, self.limit // 2)
        return 2 * half if is_even(mechanism, here) else 2 * half + 1
