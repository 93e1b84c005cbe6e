"""The VXLAN mechanism."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.core.mechanism import TunnelPlugin
from nsmesh.core.tunnelling import is_even
from nsmesh.mechanisms.vxlan import VNI_LIMIT, Vxlan
from nsmesh.model.messages import Connection, Mechanism
from nsmesh.model.tunnels import VxlanPort
from nsmesh.model.wiring import Side

CONNECTION = Connection(id="fwd-1", network_service="icmp-responder")
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
VNIS = st.integers(1, VNI_LIMIT - 1)


def plugin(ip="192.0.2.2", *, mtu=1500, **more) -> Vxlan:
    return Vxlan(ip, link_mtu=lambda: mtu, **more)


def vxlan(**parameters):
    return Mechanism(cls="REMOTE", type="VXLAN", parameters=parameters)


def test_it_is_a_mechanism_between_nodes():
    """The elements that make wires between nodes know it by its face."""
    assert isinstance(plugin(), TunnelPlugin)
    assert (plugin().cls, plugin().type) == ("REMOTE", "VXLAN")


def test_who_asks_names_its_own_end():
    """Address, port and the MTU that fits through this node's link; nothing of the other end."""
    assert plugin("192.0.2.1", port=4790).offer(CONNECTION) == vxlan(
        src_ip="192.0.2.1", src_port="4790", MTU="1450"
    )
    assert plugin("2001:db8::1").offer(CONNECTION).parameters["MTU"] == "1430"


def test_who_answers_adds_its_own_end():
    """Destination, VNI, and the smaller MTU of both; what else was said is kept."""
    offered = vxlan(src_ip="192.0.2.1", src_port="4790", MTU="1450", other="kept")
    accepted = plugin(mtu=1400).accept(offered, CONNECTION).parameters
    vni = int(accepted.pop("vni"))
    assert dict(accepted) == {
        "src_ip": "192.0.2.1",
        "src_port": "4790",
        "dst_ip": "192.0.2.2",
        "dst_port": "4789",
        "MTU": "1350",
        "other": "kept",
    }
    assert 0 < vni < VNI_LIMIT


def test_an_offer_without_port_and_mtu_means_the_usual():
    """As forwarders of others may offer: port 4789, and whatever MTU this node has."""
    accepted = plugin().accept(vxlan(src_ip="192.0.2.1"), CONNECTION).parameters
    assert (accepted["src_port"], accepted["MTU"]) == ("4789", "1450")


def test_accepting_again_changes_nothing():
    """A refresh, and the same wish after a restart, get the same VNI."""
    offered = vxlan(src_ip="192.0.2.1")
    accepted = plugin().accept(offered, CONNECTION)
    assert plugin().accept(accepted, CONNECTION) == accepted
    assert plugin().accept(offered, CONNECTION) == accepted
    other = plugin().accept(offered, Connection(id="fwd-2"))
    assert other.parameters["vni"] != accepted.parameters["vni"]


@given(VNIS)
def test_a_vni_that_is_there_is_kept(vni):
    """Whoever chose it and whatever its parity."""
    accepted = plugin().accept(vxlan(src_ip="192.0.2.1", vni=str(vni)), CONNECTION)
    assert accepted.parameters["vni"] == str(vni)


@given(ADDRESSES, ADDRESSES, st.integers(), st.text())
def test_two_nodes_that_ask_each_other_never_choose_the_same_vni(one, other, seed, wire):
    """Even where src is not above dst, odd where it is, first or after a collision."""
    if one.version != other.version or one == other:
        return
    vnis = []
    for here, there in ((one, other), (other, one)):
        serving = plugin(str(here), random=Random(seed))
        offered = vxlan(src_ip=str(there))
        accepted = serving.accept(offered, Connection(id=wire))
        changed = [serving.another(item) for item in (accepted, offered)]
        vnis.append({int(item.parameters["vni"]) % 2 for item in (accepted, *changed)})
    assert vnis == [{int(other > one)}, {int(one > other)}]


@given(ADDRESSES, ADDRESSES)
def test_addresses_are_compared_as_sixteen_bytes(source, destination):
    """An IPv4 address counts as its mapped form; addresses before a translation stand above the others."""

    def wide(address):
        return address.packed if address.version == 6 else ip_address(f"::ffff:{address}").packed

    even = wide(source) <= wide(destination)
    assert is_even(vxlan(src_ip=str(source), dst_ip=str(destination))) is even
    hidden = {"src_ip": "203.0.113.9", "dst_ip": "203.0.113.1"}
    assert is_even(vxlan(orig_src_ip=str(source), orig_dst_ip=str(destination), **hidden)) is even


def test_a_missing_address_decides_too():
    """Without a source even, without a destination alone odd."""
    assert is_even(vxlan(dst_ip="192.0.2.1"))
    assert not is_even(vxlan(src_ip="192.0.2.1"))


@given(VNIS)
def test_another_tunnel_is_another_one(vni):
    """What is taken is never proposed again at once, and everything but the VNI stays."""
    agreed = vxlan(src_ip="192.0.2.1", dst_ip="192.0.2.2", vni=str(vni))
    changed = plugin().another(agreed)
    assert changed.parameters.pop("vni") != agreed.parameters.pop("vni")
    assert changed == agreed


def test_each_side_has_the_other_as_its_far_end():
    """Where the client is elsewhere the wire leads to src, where the endpoint is, to dst."""
    agreed = vxlan(
        src_ip="192.0.2.1",
        src_port="4790",
        dst_ip="192.0.2.2",
        dst_port="4791",
        vni="77",
        MTU="1400",
        src_hw_addr="02:00:00:00:00:0a",
        dst_hw_addr="02:00:00:00:00:0b",
    )
    macs = {"mac": "02:00:00:00:00:0b", "peer_mac": "02:00:00:00:00:0a"}
    serving = plugin("192.0.2.2", port=4791).port(CONNECTION, agreed, Side.CLIENT)
    assert serving == VxlanPort(77, "192.0.2.2", "192.0.2.1", 4791, 4790, 1400, **macs)
    macs = {"mac": "02:00:00:00:00:0a", "peer_mac": "02:00:00:00:00:0b"}
    asking = plugin("192.0.2.1", port=4790).port(CONNECTION, agreed, Side.ENDPOINT)
    assert asking == VxlanPort(77, "192.0.2.1", "192.0.2.2", 4790, 4791, 1400, **macs)


def test_macs_are_told_and_taken_back():
    """Each side has a parameter of its own."""
    mechanism = vxlan(vni="7")
    plugin().introduce(mechanism, Side.CLIENT, "02:00:00:00:00:0a")
    plugin().introduce(mechanism, Side.ENDPOINT, "02:00:00:00:00:0b")
    assert mechanism.parameters["src_hw_addr"] == "02:00:00:00:00:0a"
    assert mechanism.parameters["dst_hw_addr"] == "02:00:00:00:00:0b"
    plugin().introduce(mechanism, Side.ENDPOINT, "")
    assert dict(mechanism.parameters) == {"vni": "7", "src_hw_addr": "02:00:00:00:00:0a"}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "the VXLAN parameter src_ip is missing"),
        ({"src_ip": "nowhere"}, "the VXLAN parameter src_ip is 'nowhere', which is no IP address"),
        ({"src_ip": "2001:db8::1"}, "would join two IP families"),
        ({"src_ip": "192.0.2.1", "src_port": "0"}, "the VXLAN parameter src_port is '0'"),
        ({"src_ip": "192.0.2.1", "vni": str(VNI_LIMIT)}, "the VXLAN parameter vni is '16777216'"),
        ({"src_ip": "192.0.2.1", "MTU": "²"}, "the VXLAN parameter MTU is '²'"),
    ],
)
def test_a_wrong_offer_is_refused_with_its_parameter(parameters, told):
    """The error names the parameter and its value."""
    with pytest.raises(Invalid, match=told):
        plugin().accept(vxlan(**parameters), CONNECTION)


def test_a_tunnel_that_was_not_agreed_has_no_port():
    """Without VNI or far end there is nothing to wire."""
    with pytest.raises(Invalid, match="the VXLAN parameter vni is ''"):
        plugin().port(CONNECTION, vxlan(src_ip="192.0.2.1"), Side.CLIENT)
    with pytest.raises(Invalid, match="the VXLAN parameter dst_ip is missing"):
        plugin().port(CONNECTION, vxlan(vni="7"), Side.ENDPOINT)


def test_an_underlay_that_is_away_is_told():
    """Nothing is offered over an address that this node does not have."""

    def away():
        raise Unavailable("the tunnel address 192.0.2.2 is on no interface of this node")

    with pytest.raises(Unavailable, match="on no interface"):
        Vxlan("192.0.2.2", link_mtu=away).offer(CONNECTION)


def test_it_is_described_by_its_vni():
    """As in the metrics of the path."""
    assert plugin().describe(vxlan(vni="77")) == "VXLAN/77"
