import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.datapath import wirestate as ws
from nsmesh.datapath.base import CrossConnect, KernelPort, Neighbour, PolicyRule, Route
from nsmesh.datapath.packed import parse_prefix


@pytest.mark.parametrize("name", ["nsm-1", "a", "x" * 15, "eth0.100", "ä"])
def test_usable_names_pass(name):
    """What the kernel takes as an interface name is taken."""
    ws.check_name(name)


@pytest.mark.parametrize(
    "name", ["", "x" * 16, "ä" * 8, "a/b", "a b", "a\tb", ".", "..", "a:b", "nsm%d", "all", "default", "a\0"]
)
def test_unusable_names_are_refused_with_a_remedy(name):
    """A name that the kernel refuses, or that stands for all interfaces in /proc/sys, is Invalid."""
    with pytest.raises(Invalid) as caught:
        ws.check_name(name)
    assert caught.value.remedy


def test_an_id_must_fit_the_alias():
    """The owner's mark holds ids up to the alias limit of the kernel, in bytes, and never an empty one."""
    assert len(ws.alias_of("x" * 251)) == 255
    for wire_id in ("", "x" * 252, "ä" * 126, "a\0b"):
        with pytest.raises(Invalid):
            ws.alias_of(wire_id)


@given(st.text(min_size=1, max_size=60).filter(lambda text: "\0" not in text and text.isprintable()))
def test_the_owner_can_be_read_back_from_the_alias(wire_id):
    """owner_of(alias_of(id)) is id."""
    assert ws.owner_of(ws.alias_of(wire_id)) == wire_id


def test_an_alias_of_somebody_else_has_no_owner():
    """Only our prefix names an owner."""
    assert ws.owner_of("uplink to rack 3") == ""


@given(st.integers(ws.INDEX_FIRST, ws.INDEX_LIMIT - 1), st.integers(0, ws.RULES_PER_END - 1))
def test_a_rules_table_names_its_interface(index, ordinal):
    """The interface can be told from the table, whatever its index and the rule's place."""
    assert ws.table_index(ws.rule_table(index, ordinal)) == index


@pytest.mark.parametrize("table", [0, 253, 254, 255, 1000, 0x7FFF_FFFF])
def test_tables_of_others_name_no_interface(table):
    """The tables that people and other programs use are not ours."""
    assert ws.table_index(table) == 0


def test_a_port_becomes_an_end_state():
    """Addresses, routes, neighbours and rules are normalised; the last of equal keys wins."""
    port = KernelPort(
        "/n",
        "nsm-1",
        mac="02:00:00:00:00:0A",
        mtu=1400,
        addresses=("10.0.0.1/24", "fd00::1"),
        routes=(Route("10.1.2.3/16"), Route("10.1.0.0/16", "10.0.0.9")),
        neighbours=(Neighbour("10.0.0.9", "02:00:00:00:00:01"), Neighbour("10.0.0.9", "02:00:00:00:00:02")),
        rules=(PolicyRule(source="10.0.0.1/24", protocol=6, destination_ports=(80, 80)),),
    )
    state = ws.desired_end(port, 70000)
    assert [str(address) for address in state.addresses] == ["10.0.0.1/24", "fd00::1/128"]
    table = ws.rule_table(70000, 0)
    assert {str(route) for route in state.routes} == {
        "route 10.1.0.0/16 via 10.0.0.9",
        f"route 0.0.0.0/0 table {table}",
    }
    assert [str(n) for n in state.neighbours] == ["neighbour 10.0.0.9 at 02:00:00:00:00:02"]
    (rule,) = state.rules
    assert (rule.source, rule.table) == (parse_prefix("10.0.0.0/24"), table)


def test_a_rule_without_source_follows_its_routes_families():
    """One rule for each family that the routes have; IPv4 where there are none."""
    both = PolicyRule(routes=(Route("10.0.0.0/8"), Route("fd00::/8")))
    state = ws.desired_end(KernelPort("/n", "x", rules=(both, PolicyRule())), 70000)
    assert sorted((rule.table & 0xFF, rule.family) for rule in state.rules) == [
        (0, socket.AF_INET),
        (0, socket.AF_INET6),
        (1, socket.AF_INET),
    ]


def test_an_unnumbered_port_has_nothing_of_ip():
    """numbered=False: no address, route, neighbour or rule, and IPv6 off."""
    port = KernelPort("/n", "x", addresses=("10.0.0.1/32",), routes=(Route("10.0.0.2/32"),), numbered=False)
    assert ws.desired_end(port, 70000) == ws.EndState(ipv6=False)


@pytest.mark.parametrize(
    "port",
    [
        KernelPort("/n", "x", routes=(Route("10.0.0.0/8", "fd00::1"),)),
        KernelPort("/n", "x", mtu=1000, addresses=("fd00::1/64",)),
        KernelPort("/n", "x", rules=(PolicyRule(protocol=256),)),
        KernelPort("/n", "x", rules=(PolicyRule(source_ports=(9, 8)),)),
        KernelPort("/n", "x", rules=(PolicyRule(destination_ports=(1, 70000)),)),
        KernelPort("/n", "x", rules=(PolicyRule(),) * 257),
    ],
)
def test_what_the_kernel_would_refuse_is_refused_before(port):
    """A port that cannot work is Invalid, with what to do."""
    with pytest.raises(Invalid) as caught:
        ws.desired_end(port, 70000)
    assert caught.value.remedy


def test_two_ends_cannot_be_one_interface():
    """Same namespace and same name on both ends is Invalid; other names in one namespace are fine."""
    ws.check_wire(CrossConnect("i", KernelPort("/n", "x"), KernelPort("/n", "y")))
    with pytest.raises(Invalid):
        ws.check_wire(CrossConnect("i", KernelPort("/n", "x"), KernelPort("/n", "x")))
    with pytest.raises(Invalid):
        ws.check_wire(CrossConnect("i", KernelPort("/n", "x", mtu=70000), KernelPort("/m", "x")))
