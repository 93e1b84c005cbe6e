"""Echo requests over a wire: the other end's kernel answers, a dead end does not."""

import asyncio

import pytest
from endpoint_lab import Lab, ip

from nsmesh.datapath.echo import Echoes, pairs
from nsmesh.model.messages import Connection

pytestmark = pytest.mark.root


def wire(*, sources, targets):
    connection = Connection(id="c")
    connection.context.ip_context.src_ip_addrs.extend(sources)
    connection.context.ip_context.dst_ip_addrs.extend(targets)
    return connection


@pytest.fixture(scope="module")
def place():
    with Lab() as lab:
        one, two = lab.namespace("one"), lab.namespace("two")
        lab.veth(one, "eth0", two, "eth0")
        for space, last in ((one, 1), (two, 2)):
            ip("-n", space, "addr", "add", f"192.0.2.{last}/24", "dev", "eth0")
            ip("-n", space, "addr", "add", f"2001:db8::{last}/64", "dev", "eth0", "nodad")
        ip("netns", "exec", one, "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
        yield f"/run/netns/{one}"


@pytest.mark.parametrize(
    ("sources", "targets", "alive"),
    [
        (["192.0.2.1/24"], ["192.0.2.2/24"], True),
        (["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"], True),
        (["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::9/64"], False),
        (["192.0.2.9/24"], ["192.0.2.2/24"], False),
        ([], [], True),
    ],
)
def test_each_pair_of_addresses_has_to_answer(place, sources, targets, alive):
    """All of one IP version are paired; one that is silent makes the wire dead."""
    look = Echoes(place, limit=0.4)
    assert asyncio.run(look(wire(sources=sources, targets=targets))) is alive


def test_only_addresses_of_one_version_are_paired():
    """A wire with both versions has a path for each."""
    connection = wire(sources=["10.0.0.1/32", "fd00::1/128"], targets=["10.0.0.2/32", "fd00::2/128"])
    assert list(pairs(connection)) == [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")]
