"""The texts between us and WireGuard. Pure.

The user-space program's own protocol (``set=1``, ``get=1`` on its socket), the configuration file of ``wg
setconf`` and the listing of ``wg show dump``, the last two for the kernel's WireGuard.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from nsmesh.core.errors import Refused
from nsmesh.model.wireguard import PeerStatus, Tunnel


def uapi_set(tunnel: Tunnel) -> str:
    """Return the request by which the user-space program takes a whole configuration."""

    def lines() -> Iterator[str]:
        yield "set=1"
        yield f"private_key={tunnel.private_key.reveal().hex()}"
        yield f"listen_port={tunnel.listen_port}"
        yield "replace_peers=true"
        for peer in tunnel.peers:
            yield f"public_key={base64.b64decode(peer.public_key).hex()}"
            if peer.endpoint:
                yield f"endpoint={peer.endpoint}"
            yield f"persistent_keepalive_interval={peer.persistent_keepalive}"
            yield "replace_allowed_ips=true"
            yield from (f"allowed_ip={prefix}" for prefix in peer.allowed_ips)

    return "\n".join(lines()) + "\n\n"


def uapi_answer(text: str) -> list[tuple[str, str]]:
    """Return the pairs of an answer without its errno. Raises Refused where that is not 0."""
    pairs = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "errno":
            if value != "0":
                raise Refused(f"wireguard-go refused with error {value.removeprefix('-')}")
        elif key:
            pairs.append((key, value))
    return pairs


def uapi_peers(pairs: list[tuple[str, str]]) -> list[PeerStatus]:
    """Return the peers of the answer to ``get=1``."""
    groups: list[dict[str, str]] = []
    for key, value in pairs:
        if key == "public_key":
            groups.append({})
        if groups:
            groups[-1][key] = value
    return [
        PeerStatus(
            public_key=base64.b64encode(bytes.fromhex(group["public_key"])).decode(),
            endpoint=group.get("endpoint", ""),
            last_handshake=_time(
                int(group.get("last_handshake_time_sec", 0))
                + int(group.get("last_handshake_time_nsec", 0)) / 1e9
            ),
            received=int(group.get("rx_bytes", 0)),
            sent=int(group.get("tx_bytes", 0)),
        )
        for group in groups
    ]


def wg_setconf(tunnel: Tunnel) -> str:
    """Return the configuration that ``wg setconf`` reads, for the kernel's own WireGuard."""

    def lines() -> Iterator[str]:
        yield "[Interface]"
        yield f"PrivateKey = {base64.b64encode(tunnel.private_key.reveal()).decode()}"
        if tunnel.listen_port:
            yield f"ListenPort = {tunnel.listen_port}"
        for peer in tunnel.peers:
            yield "[Peer]"
            yield f"PublicKey = {peer.public_key}"
            if peer.allowed_ips:
                yield f"AllowedIPs = {', '.join(peer.allowed_ips)}"
            if peer.endpoint:
                yield f"Endpoint = {peer.endpoint}"
            if peer.persistent_keepalive:
                yield f"PersistentKeepalive = {peer.persistent_keepalive}"

    return "\n".join(lines()) + "\n"


def wg_peers(listing: str) -> list[PeerStatus]:
    """Return the peers in the output of ``wg show NAME dump``; its first line is the interface."""
    out = []
    for line in listing.splitlines()[1:]:
        public, _, endpoint, _, handshake, received, sent, _ = line.split("\t")
        endpoint = "" if endpoint == "(none)" else endpoint
        out.append(PeerStatus(public, endpoint, _time(float(handshake)), int(received), int(sent)))
    return out


def _time(seconds: float) -> float | None:
    return seconds or None
