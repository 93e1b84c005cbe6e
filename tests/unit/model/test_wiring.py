"""From a connection's context to ports."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.messages import (
    Connection,
    ConnectionContext,
    EthernetContext,
    IPContext,
    IpNeighbor,
    PolicyRoute,
)
from nsmesh.model.messages import Route as RouteMessage
from nsmesh.model.tunnels import VxlanPort
from nsmesh.model.wire import KernelPort, Neighbour, PolicyRule, Route
from nsmesh.model.wiring import Side, cross_connect, kernel_port, own_mac
from nsmesh.model.wiring_texts import WiringError


def connection(payload="ETHERNET", mtu=0, ethernet=None, **ip):
    context = ConnectionContext(ip_context=IPContext(**ip), ethernet_context=ethernet, MTU=mtu)
    return Connection(id="fwd-1", payload=payload, context=context)


def port(made, side=Side.CLIENT, **options):
    return kernel_port(made, side, "/run/netns/x", "nsm-1", **options)


def test_the_icmp_responder_pair():
    """A point-to-point pair gives each end its address and one link-scope route to the other."""
    made = connection(
        src_ip_addrs=["169.254.0.1/32"],
        dst_ip_addrs=["169.254.0.0/32"],
        src_routes=[RouteMessage(prefix="169.254.0.0/32")],
        dst_routes=[RouteMessage(prefix="169.254.0.1/32")],
    )
    assert port(made) == KernelPort(
        "/run/netns/x", "nsm-1", addresses=("169.254.0.1/32",), routes=(Route("169.254.0.0/32"),)
    )
    assert port(made, Side.ENDPOINT) == KernelPort(
        "/run/netns/x", "nsm-1", addresses=("169.254.0.0/32",), routes=(Route("169.254.0.1/32"),)
    )


def test_a_peer_inside_the_own_prefix_needs_no_route():
    """An address of the peer that an own prefix covers gets no link-scope route."""
    made = connection(src_ip_addrs=["10.0.0.2/24"], dst_ip_addrs=["10.0.0.1/32", "10.0.1.1/32"])
    assert port(made).routes == (Route("10.0.1.1/32"),)


def test_a_route_without_next_hop_goes_through_the_first_peer_of_its_family():
    """The default gateway is the first peer address of the route's family."""
    made = connection(
        src_ip_addrs=["10.0.0.1/32", "fd00::1/128"],
        dst_ip_addrs=["fd00::/128", "10.0.0.0/32", "10.9.9.9/32"],
        src_routes=[
            RouteMessage(prefix="0.0.0.0/0"),
            RouteMessage(prefix="::/0"),
            RouteMessage(prefix="192.0.2.7/24", nextHop="10.0.0.3"),
        ],
    )
    routes = {route.prefix: route.via for route in port(made).routes}
    assert routes["0.0.0.0/0"] == "10.0.0.0"
    assert routes["::/0"] == "fd00::"
    assert routes["192.0.2.0/24"] == "10.0.0.3"
    assert routes["10.9.9.9/32"] == ""


def test_a_route_into_the_peers_own_net_has_no_gateway():
    """A prefix whose address lies in a peer's prefix is on the link."""
    made = connection(
        src_ip_addrs=["10.0.0.1/32"],
        dst_ip_addrs=["10.1.0.1/24"],
        src_routes=[RouteMessage(prefix="10.1.0.128/25"), RouteMessage(prefix="10.2.0.0/16")],
    )
    assert Route("10.1.0.128/25") in port(made).routes
    assert Route("10.2.0.0/16", "10.1.0.1") in port(made).routes


def test_a_route_of_a_family_without_peer_has_no_gateway():
    """Without a peer address of the family there is nobody to go through."""
    made = connection(dst_ip_addrs=["10.0.0.1/32"], src_routes=[RouteMessage(prefix="::/0")])
    assert Route("::/0") in port(made).routes


def test_policies_become_rules_on_the_clients_side_only():
    """A policy without routes means the default route; ports and protocol are read; the endpoint has none."""
    made = connection(
        src_ip_addrs=["10.0.0.1/32"],
        dst_ip_addrs=["10.0.0.0/32"],
        policies=[
            PolicyRoute(proto="6", dst_port="6666", src_port="10-20", **{"from": "172.16.2.201/24"}),
            PolicyRoute(proto="17", routes=[RouteMessage(prefix="172.16.3.0/24", nextHop="10.0.0.0")]),
            PolicyRoute(**{"from": "fd00::5/128"}),
        ],
    )
    assert port(made).rules == (
        PolicyRule("172.16.2.0/24", 6, (10, 20), (6666, 6666), (Route("0.0.0.0/0", "10.0.0.0"),)),
        PolicyRule("", 17, None, None, (Route("172.16.3.0/24", "10.0.0.0"),)),
        PolicyRule("fd00::5/128", None, None, None, (Route("::/0"),)),
    )
    assert port(made, Side.ENDPOINT).rules == ()


def test_macs_mtu_and_neighbours():
    """MACs go to their sides, the MTU to both; a neighbour entry for the own address is left out."""
    made = connection(
        mtu=1400,
        ethernet=EthernetContext(src_mac="02:00:00:00:00:0A", dst_mac="02:00:00:00:00:0b"),
        src_ip_addrs=["10.0.0.1/32"],
        dst_ip_addrs=["10.0.0.0/32"],
        ip_neighbors=[IpNeighbor(ip="10.0.0.0", hardware_address="02:00:00:00:00:0b")],
    )
    near, far = port(made), port(made, Side.ENDPOINT)
    assert (near.mac, far.mac) == ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
    assert (near.mtu, far.mtu) == (1400, 1400)
    assert near.neighbours == (Neighbour("10.0.0.0", "02:00:00:00:00:0b"),)
    assert far.neighbours == ()


def test_an_unnumbered_port_has_nothing_of_ip():
    """A transparent function's interface gets the MTU and nothing else."""
    made = connection(
        mtu=1400,
        ethernet=EthernetContext(src_mac="02:00:00:00:00:0a"),
        src_ip_addrs=["10.0.0.1/32"],
        dst_ip_addrs=["10.0.0.0/32"],
    )
    assert port(made, numbered=False) == KernelPort("/run/netns/x", "nsm-1", mtu=1400, numbered=False)


def test_payload_ip_makes_the_ends_know_each_other():
    """A wire for payload IP has MACs and permanent neighbours, always the same; an empty payload means IP."""
    for payload in ("IP", ""):
        made = connection(payload, src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32", "fd00::/128"])
        wire = cross_connect(made, port(made), port(made, Side.ENDPOINT))
        assert wire.payload == "IP"
        assert wire.a.mac
        assert wire.b.mac
        assert wire.a.mac != wire.b.mac
        assert int(wire.a.mac[:2], 16) & 3 == 2
        assert wire.a.neighbours == (Neighbour("10.0.0.0", wire.b.mac), Neighbour("fd00::", wire.b.mac))
        assert wire.b.neighbours == (Neighbour("10.0.0.1", wire.a.mac),)
        assert wire == cross_connect(made, port(made), port(made, Side.ENDPOINT))


def test_a_neighbour_that_the_endpoint_gives_stands_above_the_derived_one():
    """``ip_neighbors`` win over what payload IP would add."""
    made = connection(
        "IP",
        src_ip_addrs=["10.0.0.1/32"],
        dst_ip_addrs=["10.0.0.0/32"],
        ip_neighbors=[IpNeighbor(ip="10.0.0.0", hardware_address="02:00:00:00:00:77")],
    )
    wire = cross_connect(made, port(made), port(made, Side.ENDPOINT))
    assert wire.a.neighbours == (Neighbour("10.0.0.0", "02:00:00:00:00:77"),)


def test_next_to_a_transparent_function_nobody_is_a_permanent_neighbour():
    """Who answers for the peer's address is behind the function, with a MAC that this wire does not know."""
    made = connection("IP", src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32"])
    wire = cross_connect(made, port(made), port(made, Side.ENDPOINT, numbered=False))
    assert wire.a.neighbours == ()
    assert (wire.a.mac, wire.b.mac) == ("", "")


def test_a_frame_wire_leaves_macs_to_the_driver():
    """Payload ETHERNET derives nothing."""
    made = connection("ETHERNET", src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32"])
    wire = cross_connect(made, port(made), port(made, Side.ENDPOINT))
    assert (wire.id, wire.a.mac, wire.b.mac, wire.a.neighbours) == ("fwd-1", "", "", ())


@pytest.mark.parametrize(
    ("ip", "said"),
    [
        (
            {"src_ip_addrs": ["10.0.0.1"]},
            "src_ip_addrs has '10.0.0.1' without a prefix length, such as 10.0.0.1/32",
        ),
        ({"dst_ip_addrs": ["10.0.0.300/32"]}, "dst_ip_addrs has '10.0.0.300/32', which is no address"),
        (
            {"src_routes": [RouteMessage(prefix="10.0.0/24")]},
            "src_routes has '10.0.0/24', which is no prefix",
        ),
        ({"src_routes": [RouteMessage(prefix="10.0.0.1")]}, "without a prefix length"),
        (
            {"src_routes": [RouteMessage(prefix="10.0.0.0/8", nextHop="x")]},
            "nextHop of src_routes 10.0.0.0/8",
        ),
        ({"src_routes": [RouteMessage(prefix="10.0.0.0/8", nextHop="fd00::1")]}, "of the other IP family"),
        ({"policies": [PolicyRoute(proto="tcp")]}, "proto has 'tcp'"),
        ({"policies": [PolicyRoute(dst_port="9-2")]}, "dst_port has '9-2'"),
        ({"policies": [PolicyRoute(src_port="70000")]}, "src_port has '70000'"),
        ({"policies": [PolicyRoute(**{"from": "here"})]}, "a policy's from has 'here'"),
        ({"ip_neighbors": [IpNeighbor(ip="10.0.0.1")]}, "without a hardware address"),
        (
            {"ip_neighbors": [IpNeighbor(ip="10.0.0.1", hardware_address="01:00:00:00:00:00")]},
            "no MAC address",
        ),
    ],
)
def test_what_cannot_be_wired_is_named(ip, said):
    """Each wrong field is refused with its name and its value."""
    with pytest.raises(WiringError) as caught:
        port(connection(**ip))
    assert said in str(caught.value)


addresses = st.lists(
    st.one_of(
        st.builds(
            lambda ip, length: f"{ip}/{length}",
            st.integers(0x0A000000, 0x0A0000FF).map(ipaddress.IPv4Address),
            st.integers(24, 32),
        ),
        st.builds(
            lambda ip, length: f"{ip}/{length}",
            st.integers(0xFD << 120, (0xFD << 120) + 255).map(ipaddress.IPv6Address),
            st.integers(120, 128),
        ),
    ),
    max_size=4,
)


@given(src=addresses, dst=addresses)
def test_each_end_reaches_every_address_of_the_other(src, dst):
    """Whatever the addresses: each peer address lies in an own prefix or has a route; no route twice."""
    made = connection(src_ip_addrs=src, dst_ip_addrs=dst)
    for side, peers in ((Side.CLIENT, dst), (Side.ENDPOINT, src)):
        end = port(made, side)
        nets = [ipaddress.ip_interface(text).network for text in end.addresses]
        nets += [ipaddress.ip_network(route.prefix) for route in end.routes]
        for peer in peers:
            assert any(ipaddress.ip_interface(peer).ip in net for net in nets)
        prefixes = [route.prefix for route in end.routes]
        assert len(prefixes) == len(set(prefixes))


@given(src=addresses, dst=addresses)
def test_the_ends_mirror_each_other(src, dst):
    """Swapping source and destination swaps the ends."""
    one = connection(src_ip_addrs=src, dst_ip_addrs=dst)
    other = connection(src_ip_addrs=dst, dst_ip_addrs=src)
    assert port(one, Side.CLIENT) == port(other, Side.ENDPOINT)
    assert port(one, Side.ENDPOINT) == port(other, Side.CLIENT)


TUNNEL = VxlanPort(
    7, "192.0.2.1", "192.0.2.2", mtu=1450, mac="02:00:00:00:00:aa", peer_mac="02:00:00:00:00:bb"
)


@pytest.mark.parametrize("side", list(Side))
def test_the_far_end_is_known_by_what_its_node_has_told(side):
    """One interface is here: it has the MAC that was told, and the far addresses at the MAC that came."""
    made = connection(
        "IP", mtu=1500, src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32", "fd00::/128"]
    )
    here = port(made, side)
    ports = (here, TUNNEL) if side is Side.CLIENT else (TUNNEL, here)
    wire = cross_connect(made, *ports)
    (end,) = wire.interfaces
    assert wire.tunnel == TUNNEL
    assert (end.mac, end.mtu) == ("02:00:00:00:00:aa", 1450)
    far = ["10.0.0.0", "fd00::"] if side is Side.CLIENT else ["10.0.0.1"]
    assert end.neighbours == tuple(Neighbour(ip, "02:00:00:00:00:bb") for ip in far)


def test_what_was_told_stands_for_who_asks_and_what_is_known_for_who_answers():
    """Who asks has told its MAC before it knows the context of the answer; who answers tells it after."""
    ethernet = EthernetContext(src_mac="02:00:00:00:00:01", dst_mac="02:00:00:00:00:02")
    made = connection("IP", ethernet=ethernet)
    assert cross_connect(made, port(made), TUNNEL).interfaces[0].mac == TUNNEL.mac
    assert cross_connect(made, TUNNEL, port(made, Side.ENDPOINT)).interfaces[0].mac == "02:00:00:00:00:02"
    assert own_mac(made, Side.CLIENT) == "02:00:00:00:00:01"


def test_a_far_end_that_told_nothing_is_found_by_arp():
    """No permanent neighbours, so wires to forwarders that tell no MAC work too; ours is derived."""
    made = connection("IP", src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32"])
    silent = VxlanPort(7, "192.0.2.1", "192.0.2.2")
    (end,) = cross_connect(made, port(made), silent).interfaces
    assert end.neighbours == ()
    assert end.mac == own_mac(made, Side.CLIENT)


def test_a_frame_wire_between_nodes_has_no_neighbours_either():
    """Nor has an unnumbered end, which stands between others."""
    made = connection("ETHERNET", src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32"])
    assert cross_connect(made, port(made), TUNNEL).interfaces[0].neighbours == ()
    assert own_mac(made, Side.CLIENT) == ""
    made.payload = "IP"
    (end,) = cross_connect(made, port(made, numbered=False), TUNNEL).interfaces
    assert (end.neighbours, end.mac, end.mtu) == ((), "", 1450)


def test_two_far_ends_are_no_wire():
    """Somebody else's business."""
    with pytest.raises(WiringError, match="both ends lead to other nodes"):
        cross_connect(connection("IP"), TUNNEL, TUNNEL)
