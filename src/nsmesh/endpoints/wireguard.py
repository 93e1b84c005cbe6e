"""Reading a WireGuard tunnel from the options of an endpoint. Pure, but for keys that are in files."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nsmesh.core.errors import Invalid
from nsmesh.endpoints import wireguard_keys
from nsmesh.model.names import nearest
from nsmesh.model.wireguard import PrivateKey, Tunnel, TunnelPeer

_PEER_FIELDS = ("public_key", "public_key_file", "endpoint", "allowed_ips", "persistent_keepalive")


def with_key(peer: TunnelPeer, seconds: float) -> TunnelPeer:
    """Return a peer with its key, which may take ``seconds`` to come. Raises NotFound or Invalid."""
    if peer.public_key:
        return peer
    key = wireguard_keys.await_public(Path(peer.public_key_file), seconds)
    return replace(peer, public_key=key, public_key_file="")


def parse_peers(value: object) -> tuple[TunnelPeer, ...]:
    """Read peers from plain data: a list of mappings, or one mapping.

    ``public_key_file`` is read in place of ``public_key``, later where it is not there yet. Raises Invalid
    with the field's path, or NotFound.
    """
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, list):
        raise Invalid(f"peers are a list of mappings, not {value!r}")
    return tuple(_peer(item, f"peers[{position}]") for position, item in enumerate(items))


def _peer(item: object, at: str) -> TunnelPeer:
    if not isinstance(item, Mapping):
        raise Invalid(f"{at}: a peer is a mapping, not {item!r}")
    for name in item:
        if name not in _PEER_FIELDS:
            near = nearest(str(name), _PEER_FIELDS) or ", ".join(_PEER_FIELDS)
            raise Invalid(f"{at}.{name}: there is no such field", remedy=f"write {near}")
    if ("public_key" in item) == ("public_key_file" in item):
        raise Invalid(f"{at}: it needs a public key", remedy="give public_key or public_key_file")
    if "public_key" in item:
        key = str(item["public_key"])
        wireguard_keys.decode(key, f"{at}.public_key")
        file = ""
    else:
        path = Path(str(item["public_key_file"]))
        key, file = (wireguard_keys.read_public(path), "") if path.exists() else ("", str(path))
    keepalive = item.get("persistent_keepalive", 0)
    if not isinstance(keepalive, int) or isinstance(keepalive, bool) or not 0 <= keepalive <= 65535:
        raise Invalid(f"{at}.persistent_keepalive: {keepalive!r} is no number of seconds up to 65535")
    endpoint = str(item.get("endpoint") or "")
    if endpoint:
        endpoint = _endpoint(endpoint, f"{at}.endpoint")
    allowed = item.get("allowed_ips", [])
    allowed = [part.strip() for part in allowed.split(",")] if isinstance(allowed, str) else allowed
    return TunnelPeer(key, endpoint, prefixes(allowed, f"{at}.allowed_ips"), keepalive, file)


def prefixes(value: object, at: str) -> tuple[str, ...]:
    """Return a list of prefixes in normal form. Raises Invalid with ``at`` and the one that is none."""
    if not isinstance(value, (list, tuple)):
        raise Invalid(f"{at}: a list of prefixes is wanted, not {value!r}")
    out = []
    for text in value:
        try:
            out.append(str(ipaddress.ip_network(str(text))))
        except ValueError as error:
            raise Invalid(f"{at}: {error}", remedy="write prefixes such as 10.1.0.0/16") from None
    return tuple(out)


def _endpoint(text: str, at: str) -> str:
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise Invalid(
            f"{at}: {text!r} is no address with a port", remedy="write 192.0.2.1:51820 or [2001:db8::1]:51820"
        )
    return f"[{address}]:{number}" if address.version == 6 else f"{address}:{number}"


def routes(tunnel: Tunnel) -> tuple[str, ...]:
    """Return the prefixes to route into the tunnel: what is behind its peers.

    Raises Invalid for a default route, which would lead the tunnel's own packets into it.
    """
    wanted = dict.fromkeys(prefix for peer in tunnel.peers for prefix in peer.allowed_ips)
    for prefix in wanted:
        if prefix.endswith("/0"):
            raise Invalid(
                f"tunnel {tunnel.name} cannot take {prefix}: its own packets would run into it",
                remedy="list the prefixes behind the peer in allowed_ips",
            )
    return tuple(wanted)


def tunnel_from(options: Mapping[str, Any], key: PrivateKey) -> Tunnel:
    """Return a tunnel from checked options: interface, addresses, listen_port, mtu, peers."""
    for address in options["addresses"]:
        try:
            ipaddress.ip_interface(address)
        except ValueError as error:
            raise Invalid(f"addresses: {error}", remedy="write addresses such as 10.200.0.1/24") from None
    tunnel = Tunnel(
        name=options["interface"],
        private_key=key,
        addresses=tuple(options["addresses"]),
        listen_port=options["listen_port"],
        mtu=options["mtu"],
        peers=tuple(options["peers"]),
    )
    routes(tunnel)
    return tunnel
