"""What holds for every mechanism between nodes, and what is each one's own."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.core.mechanism import TunnelPlugin, carries
from nsmesh.mechanisms.geneve import Geneve
from nsmesh.mechanisms.gre import Gre
from nsmesh.mechanisms.srv6 import Srv6
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.mechanisms.wireguard import PORTS, Wireguard
from nsmesh.model.messages import Connection, Mechanism
from nsmesh.model.tunnels import GenevePort, GrePort, Srv6Port, WireguardPort
from nsmesh.model.wireguard import generate, key_bytes
from nsmesh.model.wiring import Side, cross_connect, kernel_port

KINDS = {"VXLAN": Vxlan, "GENEVE": Geneve, "GRE": Gre, "WIREGUARD": Wireguard, "SRV6": Srv6}
IPS = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
HEADERS = {
    ("VXLAN", "IP"): {4: 50, 6: 70},
    ("GENEVE", "IP"): {4: 50, 6: 70},
    ("GRE", "IP"): {4: 28, 6: 48},
    ("GRE", "ETHERNET"): {4: 42, 6: 62},
    ("WIREGUARD", "IP"): {4: 60, 6: 80},
    ("SRV6", "IP"): {6: 78},
}
ASKING = Connection(id="fwd-1", payload="IP")
SERVING = Connection(id="fwd-2", payload="IP")


def plugin(kind, ip, *, mtu=1500, random=None, secret=b"s" * 32):
    more = {"secret": secret} if kind == "WIREGUARD" else {}
    return KINDS[kind](ip, link_mtu=lambda: mtu, random=random, **more)


def pair(kind, family=6, *, mtus=(1500, 1500)):
    ips = IPS[family]
    return plugin(kind, ips[0], mtu=mtus[0]), plugin(kind, ips[1], mtu=mtus[1], secret=b"t" * 32)


def agreed(kind, family=6, **more):
    near, far = pair(kind, family, **more)
    return near, far, far.accept(near.offer(ASKING), SERVING)


def families(kind):
    return (6,) if kind == "SRV6" else (4, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_a_mechanism_between_nodes(kind):
    """The elements that make wires between nodes know it by its face; it says what it carries."""
    near, _ = pair(kind)
    assert isinstance(near, TunnelPlugin)
    assert (near.type, near.cls) == (kind, "REMOTE")
    assert carries(near, Connection(payload="IP"))
    for payload in ("ETHERNET", "MPLS", "L2TP"):
        assert carries(near, Connection(payload=payload)) is (kind in {"VXLAN", "GENEVE", "GRE"})


@pytest.mark.parametrize(("kind", "payload"), HEADERS)
def test_the_mtu_is_what_fits_the_narrower_link(kind, payload):
    """Less what is around a packet, by IP version of the underlay, on both nodes and in both ports."""
    asking, serving = Connection(id="fwd-1", payload=payload), Connection(id="fwd-2", payload=payload)
    for family, header in HEADERS[kind, payload].items():
        near, far = pair(kind, family, mtus=(1500, 1400))
        offer = near.offer(asking)
        assert (near.largest(offer), offer.parameters["MTU"]) == (1500 - header, str(1500 - header))
        made = far.accept(offer, serving)
        assert made.parameters["MTU"] == str(1400 - header)
        ports = near.port(asking, made, Side.ENDPOINT), far.port(serving, made, Side.CLIENT)
        assert {port.mtu for port in ports} == {1400 - header}


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_has_the_other_as_its_far_end(kind):
    """Local here is remote there, and no two wires of a node have the same place."""
    for family in families(kind):
        near, far, made = agreed(kind, family)
        out, back = near.port(ASKING, made, Side.ENDPOINT), far.port(SERVING, made, Side.CLIENT)
        assert (out.local, out.remote) == IPS[family] == (back.remote, back.local)
        other = far.accept(
            near.offer(Connection(id="fwd-3", payload="IP")), Connection(id="fwd-4", payload="IP")
        )
        assert near.port(Connection(id="fwd-3", payload="IP"), other, Side.ENDPOINT).place != out.place
        assert out.frames is (kind not in {"WIREGUARD", "GRE"})


@pytest.mark.parametrize("kind", KINDS)
def test_accepting_again_changes_nothing(kind):
    """A refresh, and the same wish after a restart where nothing is secret, get the same."""
    near, far, made = agreed(kind)
    assert far.accept(made, SERVING) == made
    assert far.accept(near.offer(ASKING), SERVING) == made
    if kind != "WIREGUARD":
        assert pair(kind)[1].accept(near.offer(ASKING), SERVING) == made


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers())
def test_another_tunnel_is_another_one(kind, seed):
    """What is taken is never proposed again at once, on either side; both can still be wired."""
    near, far, made = agreed(kind)
    for one, side, connection, where in (
        (near, Side.CLIENT, ASKING, Side.ENDPOINT),
        (far, Side.ENDPOINT, SERVING, Side.CLIENT),
    ):
        one.random = Random(seed)
        changed = one.another(made, side)
        assert one.port(connection, changed, where).place != one.port(connection, made, where).place
        assert far.accept(changed, SERVING) == changed


@pytest.mark.parametrize("kind", KINDS)
def test_bad_parameters_are_named(kind):
    """Type, key and value stand in the error; nothing else is raised."""
    _, far, made = agreed(kind)
    source = "src_host_ip" if kind == "SRV6" else "src_ip"
    cases = [(source, ""), (source, "node"), ("MTU", "67"), ("MTU", "a lot")]
    cases += {
        "VXLAN": [("vni", "x"), ("vni", str(1 << 24)), ("src_port", "0")],
        "GENEVE": [("vni", "-1"), ("vni", str(1 << 24)), ("src_port", "70000")],
        "GRE": [("key", "x"), ("key", str(1 << 32))],
        "WIREGUARD": [
            ("src_public_key", ""),
            ("src_public_key", "short"),
            ("dst_port", "0"),
            ("src_port", "x"),
        ],
        "SRV6": [("src_localsid", ""), ("src_localsid", "10.0.0.1"), ("dst_localsid", "ff02::1")],
    }[kind]
    for key, value in cases:
        broken = Mechanism()
        broken.CopyFrom(made)
        broken.parameters[key] = value
        with pytest.raises(Invalid, match=f"{kind} parameter {key}"):
            far.accept(broken, SERVING)
    with pytest.raises(Invalid):
        plugin(kind, "node-1")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "SRV6"])
def test_two_families_are_not_joined(kind):
    """A tunnel has one outer header."""
    near, far = pair(kind, 4)[0], pair(kind, 6)[1]
    with pytest.raises(Invalid, match="would join two IP families"):
        far.accept(near.offer(ASKING), SERVING)


@pytest.mark.parametrize("kind", KINDS)
def test_an_underlay_that_is_down_is_told(kind):
    """Where the MTU cannot be read nothing is offered, and the reason is the caller's."""

    def broken():
        raise Unavailable("the link is down")

    near, _ = pair(kind)
    near._link_mtu = broken
    with pytest.raises(Unavailable):
        near.offer(ASKING)


def test_gre_makes_what_the_payload_needs():
    """Frames in gretap, packets of IP bare in gre."""
    near, far = pair("GRE", 4)
    for payload, device in (
        ("ETHERNET", "gretap"),
        ("MPLS", "gretap"),
        ("L2TP", "gretap"),
        ("IP", "gre"),
        ("", "gre"),
    ):
        connection = Connection(id="c", payload=payload)
        made = far.accept(near.offer(connection), connection)
        assert made.parameters["device"] == device
        port = near.port(connection, made, Side.ENDPOINT)
        assert isinstance(port, GrePort)
        assert port.ethernet is (device == "gretap")
    with pytest.raises(Invalid, match="a gre device for payload MPLS, and this one gretap"):
        far.accept(near.offer(ASKING), Connection(id="c", payload="MPLS"))


@pytest.mark.parametrize("framed", [(True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize("mtus", [(1500, 1400), (1400, 1500)], ids=str)
def test_gre_has_frames_where_one_node_takes_nothing_else(framed, mtus):
    """Both make a gretap for packets of IP, and its MTU has room for a frame's header at either."""
    near, far = (
        Gre(ip, link_mtu=lambda mtu=mtu: mtu, framed=one)
        for ip, mtu, one in zip(IPS[4], mtus, framed, strict=True)
    )
    for _ in range(2):
        made = far.accept(near.offer(ASKING), SERVING)
        assert made.parameters["device"] == "gretap"
        assert made.parameters["MTU"] == str(1400 - 42)
        assert far.accept(made, SERVING) == made
        ports = near.port(ASKING, made, Side.ENDPOINT), far.port(SERVING, made, Side.CLIENT)
        assert [(port.frames, port.mtu) for port in ports] == [(True, 1400 - 42)] * 2


def test_geneve_listens_where_the_standard_says():
    """Another port cannot be reached from here."""
    _, far, made = agreed("GENEVE")
    assert isinstance(far.port(SERVING, made, Side.CLIENT), GenevePort)
    made.parameters["src_port"] = "6082"
    with pytest.raises(Invalid, match="UDP port 6082, and this one on 6081"):
        far.accept(made, SERVING)


def test_wireguard_keys_are_one_pair_for_each_wire():
    """Each side has the other's public key; keys differ by wire, side and process, and stay for one."""
    near, far, made = agreed("WIREGUARD", 4)
    out, back = near.port(ASKING, made, Side.ENDPOINT), far.port(SERVING, made, Side.CLIENT)
    assert isinstance(out, WireguardPort)
    assert (out.peer_key, back.peer_key) == (back.private_key.public, out.private_key.public)
    assert (out.local_port, out.remote_port) == (back.remote_port, back.local_port)
    assert {out.local_port, back.local_port} <= set(PORTS)
    keys = {
        near.offer(Connection(id="other", payload="IP")).parameters["src_public_key"],
        near.accept(made, ASKING).parameters["dst_public_key"],
        plugin("WIREGUARD", "192.0.2.1", secret=b"n" * 32).offer(ASKING).parameters["src_public_key"],
    }
    assert len(keys | {out.private_key.public}) == 4
    assert near.offer(ASKING).parameters["src_public_key"] == out.private_key.public
    assert out.private_key.reveal().hex() not in repr(out)


def test_wireguard_of_others_is_understood():
    """A forwarder that says no port means the usual one; it gets a key and a port from us."""
    offered = Mechanism(cls="REMOTE", type="WIREGUARD")
    offered.parameters.update(src_ip="192.0.2.1", src_public_key=generate().public)
    made = plugin("WIREGUARD", "192.0.2.2").accept(offered, SERVING).parameters
    assert (made["src_port"], made["MTU"]) == ("51820", "1440")
    assert key_bytes(made["dst_public_key"])


def test_a_wire_of_packets_has_no_macs():
    """Whatever was told: such an interface has neither a MAC nor neighbours."""
    near, _, made = agreed("WIREGUARD", 4)
    connection = Connection(id="fwd-1", payload="IP")
    connection.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
    connection.context.ip_context.dst_ip_addrs.append("10.0.0.2/32")
    connection.context.ethernet_context.src_mac = "02:00:00:00:00:01"
    near.introduce(made, Side.CLIENT, "02:00:00:00:00:01")
    assert "src_hw_addr" not in made.parameters
    end = kernel_port(connection, Side.CLIENT, "/run/netns/a", "nsm-1")
    wire = cross_connect(connection, end, near.port(connection, made, Side.ENDPOINT))
    assert (wire.a.mac, wire.a.neighbours, wire.a.mtu) == ("", (), 1440)
    assert [route.prefix for route in wire.a.routes] == ["10.0.0.2/32"]


def test_each_node_has_a_segment_identifier_for_a_wire():
    """Each names its own; the underlay is IPv6."""
    near, far, made = agreed("SRV6")
    out = near.port(ASKING, made, Side.ENDPOINT)
    assert isinstance(out, Srv6Port)
    assert (out.local_sid, out.remote_sid) == (
        made.parameters["src_localsid"],
        made.parameters["dst_localsid"],
    )
    assert made.parameters["dst_host_ip"] == IPS[6][1]
    assert far.describe(made) == f"SRV6/{out.remote_sid}"
    with pytest.raises(Invalid, match=r"needs an underlay of IPv6, and 192\.0\.2\.1 is IPv4"):
        plugin("SRV6", "192.0.2.1")


def test_keys_of_srv6_that_others_set_are_passed_on():
    """Those that NSM names and no wire of ours needs stay as they are, also when the tunnel is exchanged."""
    near, far = pair("SRV6")
    offer = near.offer(ASKING)
    others = {
        f"{side}_{key}": f"2001:db8:{number}::{side == 'dst':d}"
        for number, key in enumerate(("bsid", "host_localsid"), 1)
        for side in ("src", "dst")
    }
    offer.parameters.update(others)
    made = far.accept(offer, SERVING)
    for mechanism in (made, far.another(made), far.accept(made, SERVING)):
        assert others.items() <= dict(mechanism.parameters).items()
    assert far.port(SERVING, made, Side.CLIENT).remote_sid == offer.parameters["src_localsid"]


def test_segment_identifiers_are_from_the_prefix_of_the_node():
    """The same for the same connection; another one of it is from there too; what is no prefix is refused."""
    routed = Srv6("2001:db8::1", link_mtu=lambda: 1500, prefix="2001:db8:5e:1::/64")
    offer = routed.offer(ASKING)
    sids = {made.parameters["src_localsid"] for made in (offer, routed.offer(ASKING), routed.another(offer))}
    assert len(sids) == 2
    assert all(sid.startswith("2001:db8:5e:1:") for sid in sids)
    alone = Srv6("2001:db8::1", link_mtu=lambda: 1500).offer(ASKING).parameters["src_localsid"]
    assert alone.startswith("fd5e:")
    for wrong, says in (
        ("2001:db8::1/64", "has host bits set"),
        ("192.0.2.0/24", "no prefix of IPv6"),
        ("2001:db8::/112", "no segment identifiers can be made"),
        ("fe80::/64", "no segment identifiers can be made"),
    ):
        with pytest.raises(Invalid, match=says):
            Srv6("2001:db8::1", link_mtu=lambda: 1500, prefix=wrong)
