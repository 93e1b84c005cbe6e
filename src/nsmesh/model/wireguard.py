"""A WireGuard tunnel as it shall be and how it is: the records, and the keys that do not show themselves."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

PORT = 51820
"""UDP port that WireGuard listens on by custom."""
MTU = 1420
"""MTU of a tunnel whose outer packets fit 1500 bytes, over IPv6 too."""
KEY_SIZE = 32
"""Bytes of a key, private or public."""


class PrivateKey:
    """A private key that does not show itself: not in a log, not in an error, not in a repr.

    Two of them are equal where their public keys are.
    """

    __slots__ = ("_key",)

    def __init__(self, raw: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(raw)

    @property
    def public(self) -> str:
        """The public key, base64."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def reveal(self) -> bytes:
        """Return the 32 secret bytes, for the socket of WireGuard or the owner's file alone."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivateKey) and self.public == other.public

    def __hash__(self) -> int:
        return hash(self.public)


def generate() -> PrivateKey:
    """Return a new key."""
    return PrivateKey(X25519PrivateKey.generate().private_bytes_raw())


def key_bytes(text: str) -> bytes:
    """Return the 32 bytes of a key in base64, or nothing where ``text`` is no key."""
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if len(raw) == KEY_SIZE else b""


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """The other end. ``endpoint`` is ``IP:port`` (or ``[IPv6]:port``), empty where it calls us.

    ``allowed_ips`` are the prefixes behind it; ``persistent_keepalive`` seconds, 0 is off. Where
    ``public_key`` is empty, it is to come in ``public_key_file``: the other end may be starting just now.
    """

    public_key: str
    endpoint: str = ""
    allowed_ips: tuple[str, ...] = ()
    persistent_keepalive: int = 0
    public_key_file: str = ""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One tunnel. ``name`` of the interface; ``addresses`` in CIDR; ``listen_port`` 0 is any free one."""

    name: str
    private_key: PrivateKey = field(repr=False)
    addresses: tuple[str, ...] = ()
    listen_port: int = PORT
    mtu: int = MTU
    peers: tuple[TunnelPeer, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How one peer is. ``last_handshake`` in seconds since the epoch, None before the first one; bytes."""

    public_key: str
    endpoint: str
    last_handshake: float | None
    received: int
    sent: int
