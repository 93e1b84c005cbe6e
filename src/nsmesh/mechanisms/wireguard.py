"""WIREGUARD: the wire goes on to another node, as packets in encrypted UDP over the underlay."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from random import Random

from nsmesh.core.errors import Invalid
from nsmesh.core.tunnelling import DST_PORT, SRC_PORT, Tunnelling, number
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import IP, WIREGUARD, Connection, Mechanism
from nsmesh.model.tunnels import WireguardPort
from nsmesh.model.wireguard import PORT, PrivateKey, key_bytes
from nsmesh.model.wiring import Side

SRC_KEY, DST_KEY = "src_public_key", "dst_public_key"
PORTS = range(PORT, PORT + 8192)
"""UDP ports from which each wire gets one of its own."""


class Wireguard(Tunnelling):
    """Negotiates WireGuard tunnels between two forwarders: for each wire a key and a UDP port on both nodes.

    ``secret`` is this forwarder's alone and never leaves its memory: the private key of a wire is derived
    from it and the connection's id, so that asking twice gives the same key, and a new process new ones.
    """

    type = WIREGUARD
    payloads: tuple[str, ...] = (IP,)
    headers = {4: 60, 6: 80}  # noqa: RUF012 - read only: IP, UDP, WireGuard's header and its tag

    def __init__(
        self, tunnel_ip: str, *, link_mtu: Callable[[], int], secret: bytes, random: Random | None = None
    ) -> None:
        super().__init__(tunnel_ip, link_mtu=link_mtu, random=random)
        self._secret = secret

    def offer(self, connection: Connection) -> Mechanism:
        """Return REMOTE WIREGUARD with address, port and public key of this node."""
        mechanism = self.offered()
        mechanism.parameters[SRC_PORT] = str(_port(connection, SRC_PORT))
        mechanism.parameters[SRC_KEY] = self._key(connection, SRC_KEY).public
        return mechanism

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with address, port and public key of this node, and the smaller MTU of both."""
        _public(offered, SRC_KEY)
        mechanism = self.accepted(offered)
        parameters = mechanism.parameters
        parameters[SRC_PORT] = str(number(mechanism, SRC_PORT, 1, 65535, PORT))
        parameters[DST_PORT] = str(number(mechanism, DST_PORT, 1, 65535, _port(connection, DST_PORT)))
        parameters[DST_KEY] = self._key(connection, DST_KEY).public
        return mechanism

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> WireguardPort:
        """Return the way to the other node: to ``src`` where the client's side is there, else to ``dst``."""
        asked = side is Side.CLIENT
        own, far = (DST_KEY, SRC_KEY) if asked else (SRC_KEY, DST_KEY)
        own_port, far_port = (DST_PORT, SRC_PORT) if asked else (SRC_PORT, DST_PORT)
        return WireguardPort(
            private_key=self._key(connection, own),
            peer_key=_public(mechanism, far),
            local=str(self.ip),
            remote=self.remote(mechanism, side),
            local_port=number(mechanism, own_port, 1, 65535, PORT),
            remote_port=number(mechanism, far_port, 1, 65535, PORT),
            mtu=self.largest(mechanism),
        )

    def introduce(self, mechanism: Mechanism, side: Side, mac: str) -> None:
        """Do nothing: the interfaces carry bare packets and have no MAC."""

    def another(self, mechanism: Mechanism, side: Side = Side.CLIENT) -> Mechanism:
        """Return the mechanism with a random port of this node, other than the one that it has."""
        key = SRC_PORT if side is Side.CLIENT else DST_PORT
        changed = copy_of(mechanism)
        while changed.parameters.get(key, "") == mechanism.parameters.get(key, ""):
            changed.parameters[key] = str(self.random.choice(PORTS))
        return changed

    def describe(self, mechanism: Mechanism) -> str:
        """Return ``WIREGUARD/`` and the port of the node that answered."""
        return f"{WIREGUARD}/{mechanism.parameters.get(DST_PORT, '')}"

    def _key(self, connection: Connection, half: str) -> PrivateKey:
        text = f"{connection.id} {half}".encode()
        return PrivateKey(hmac.digest(self._secret, text, hashlib.sha256))


def _port(connection: Connection, half: str) -> int:
    return Random(f"{connection.id} {half}").choice(PORTS)  # noqa: S311 - no secret


def _public(mechanism: Mechanism, key: str) -> str:
    text = mechanism.parameters.get(key, "")
    if not key_bytes(text):
        raise Invalid(
            f"the WIREGUARD parameter {key} is {text!r}, which is no public key"
            if text
            else f"the WIREGUARD parameter {key} is missing",
            remedy="look at the forwarder at the other end: a key is 32 bytes in base64",
        )
    return text
