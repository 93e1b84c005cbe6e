"""WireGuard: keys, options and the texts between us and it."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from nsmesh.core.errors import Invalid, NotFound, Refused, Unauthorized
from nsmesh.datapath.wireguard_text import uapi_answer, uapi_peers, uapi_set, wg_peers, wg_setconf
from nsmesh.endpoints import wireguard_keys
from nsmesh.endpoints.wireguard import parse_peers, routes, tunnel_from
from nsmesh.model.wireguard import PeerStatus, PrivateKey, Tunnel, TunnelPeer

KEY = PrivateKey(bytes(range(32)))
OTHER = PrivateKey(b"\x07" * 32).public
TUNNEL = Tunnel(
    name="wg0",
    private_key=KEY,
    addresses=("10.200.0.2/32",),
    listen_port=51820,
    peers=(TunnelPeer(OTHER, "192.0.2.1:51820", ("10.1.0.0/16", "fd00::/8"), 25),),
)


def test_a_private_key_does_not_show_itself():
    """Not in its own representation, and not in that of a tunnel that holds it."""
    secret = base64.b64encode(KEY.reveal()).decode()
    for text in (repr(KEY), str(KEY), f"{TUNNEL!r}", f"{[KEY]}"):
        assert secret not in text
        assert KEY.reveal().hex() not in text
    assert KEY.public in repr(KEY)


def test_public_keys_are_those_of_rfc_7748():
    """Bob's pair of the RFC's section 6.1."""
    secret = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert base64.b64decode(PrivateKey(secret).public).hex() == public


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path):
    """The second call reads what the first made; the public key stands beside it."""
    path = tmp_path / "wg.key"
    first = wireguard_keys.ensure(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert wireguard_keys.ensure(path).public == first.public
    assert wireguard_keys.read_public(tmp_path / "wg.key.pub") == first.public
    assert wireguard_keys.read_private(path).reveal() == first.reveal()


def test_a_key_in_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As in a mounted secret: the key is read, and nothing is written beside it."""
    path = tmp_path / "wg.key"
    first = wireguard_keys.ensure(path)
    (tmp_path / "wg.key.pub").unlink()
    monkeypatch.setattr(wireguard_keys.os, "access", lambda *_: False)
    assert wireguard_keys.ensure(path).public == first.public
    assert list(tmp_path.iterdir()) == [path]


def test_key_files_that_cannot_be_used_are_refused(tmp_path: Path):
    """One that others may read, one that is no key, one that is not there; the error shows no key."""
    path = tmp_path / "wg.key"
    wireguard_keys.ensure(path)
    path.chmod(0o640)
    with pytest.raises(Unauthorized, match=r"others may read .* \(mode 0640\) - chmod 600"):
        wireguard_keys.read_private(path)
    path.chmod(0o600)
    path.write_text("almost-a-key")
    with pytest.raises(Invalid, match="is no WireGuard key") as caught:
        wireguard_keys.read_private(path)
    assert "almost-a-key" not in str(caught.value)
    with pytest.raises(NotFound, match="cannot be read"):
        wireguard_keys.read_private(tmp_path / "none")
    with pytest.raises(NotFound, match="cannot be made"):
        wireguard_keys.ensure(tmp_path / "none" / "wg.key")


def test_the_command_makes_a_pair_and_prints_the_public_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """And says how it is used where it is not."""
    assert wireguard_keys.main([str(tmp_path / "k")]) == 0
    assert capsys.readouterr().out.strip() == wireguard_keys.read_public(tmp_path / "k.pub")
    assert wireguard_keys.main([]) == 2
    assert wireguard_keys.main([str(tmp_path / "none" / "k")]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_peers_are_read_from_options(tmp_path: Path):
    """One mapping or a list; a key or a file with it; endpoints and prefixes in normal form."""
    (tmp_path / "pub").write_text(f"{OTHER}\n")
    peers = parse_peers(
        [
            {"public_key": OTHER, "endpoint": "[2001:DB8::1]:5", "allowed_ips": "10.0.0.0/8, fd00::/8"},
            {"public_key_file": str(tmp_path / "pub"), "persistent_keepalive": 25},
        ]
    )
    assert peers == (
        TunnelPeer(OTHER, "[2001:db8::1]:5", ("10.0.0.0/8", "fd00::/8")),
        TunnelPeer(OTHER, persistent_keepalive=25),
    )
    assert parse_peers({"public_key": OTHER}) == (TunnelPeer(OTHER),)


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        ("x", "a peer is a mapping"),
        ({}, "it needs a public key"),
        ({"public_key": "x"}, r"peers\[0\].public_key is no WireGuard key"),
        ({"publickey": OTHER}, "there is no such field - write public_key"),
        ({"public_key": OTHER, "endpoint": "site:51820"}, "is no address with a port"),
        ({"public_key": OTHER, "endpoint": "192.0.2.1"}, "is no address with a port"),
        ({"public_key": OTHER, "endpoint": "192.0.2.1:70000"}, "is no address with a port"),
        ({"public_key": OTHER, "allowed_ips": ["10.0.0.1/8"]}, "host bits set"),
        ({"public_key": OTHER, "allowed_ips": 5}, "a list of prefixes is wanted"),
        ({"public_key": OTHER, "persistent_keepalive": "often"}, "is no number of seconds"),
    ],
)
def test_a_wrong_peer_is_refused_with_its_field(peer, said):
    """Each in one sentence."""
    with pytest.raises(Invalid, match=said):
        parse_peers([peer])


def test_the_request_to_wireguard_go_is_the_whole_configuration():
    """Keys in hex, peers replaced as a whole."""
    assert uapi_set(TUNNEL).splitlines() == [
        "set=1",
        f"private_key={bytes(range(32)).hex()}",
        "listen_port=51820",
        "replace_peers=true",
        f"public_key={base64.b64decode(OTHER).hex()}",
        "endpoint=192.0.2.1:51820",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=10.1.0.0/16",
        "allowed_ip=fd00::/8",
        "",
    ]


def test_the_answer_of_wireguard_go_is_read():
    """Peers with their handshake and bytes; an error number is an error."""
    text = (
        f"private_key=00\nlisten_port=51820\npublic_key={base64.b64decode(OTHER).hex()}\n"
        "endpoint=192.0.2.1:51820\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=500000000\n"
        f"tx_bytes=296\nrx_bytes=1504\nallowed_ip=10.1.0.0/16\npublic_key={bytes(32).hex()}\n"
        "last_handshake_time_sec=0\nlast_handshake_time_nsec=0\nerrno=0\n\n"
    )
    first, second = uapi_peers(uapi_answer(text))
    assert first == PeerStatus(OTHER, "192.0.2.1:51820", 1_700_000_000.5, 1504, 296)
    assert (second.endpoint, second.last_handshake, second.received) == ("", None, 0)
    with pytest.raises(Refused, match="error 22"):
        uapi_answer("errno=-22\n\n")


def test_the_texts_of_wg_are_written_and_read():
    """The configuration file, and the listing with tabs."""
    assert wg_setconf(TUNNEL).splitlines() == [
        "[Interface]",
        f"PrivateKey = {base64.b64encode(KEY.reveal()).decode()}",
        "ListenPort = 51820",
        "[Peer]",
        f"PublicKey = {OTHER}",
        "AllowedIPs = 10.1.0.0/16, fd00::/8",
        "Endpoint = 192.0.2.1:51820",
        "PersistentKeepalive = 25",
    ]
    listing = (
        f"secret\tpublic\t51820\toff\n{OTHER}\t(none)\t192.0.2.1:51820\t10.1.0.0/16\t1700000000\t5\t6\t25\n"
        f"{OTHER}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
    )
    assert wg_peers(listing) == [
        PeerStatus(OTHER, "192.0.2.1:51820", 1_700_000_000.0, 5, 6),
        PeerStatus(OTHER, "", None, 0, 0),
    ]


def test_a_default_route_into_the_tunnel_is_refused():
    """It would swallow the tunnel's own packets."""
    with pytest.raises(Invalid, match=r"cannot take 0\.0\.0\.0/0"):
        routes(Tunnel("wg0", KEY, peers=(TunnelPeer(OTHER, allowed_ips=("0.0.0.0/0",)),)))
    assert routes(TUNNEL) == ("10.1.0.0/16", "fd00::/8")


def test_a_wrong_address_is_refused():
    """With the option's name."""
    options = {"interface": "wg0", "addresses": ("10.0.0",), "listen_port": 1, "mtu": 1420, "peers": ()}
    with pytest.raises(Invalid, match=r"addresses: '10\.0\.0'"):
        tunnel_from(options, KEY)
