import asyncio
import os
import socket

import datapath_lab as lab
import pytest

from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect, KernelPort, Neighbour, PolicyRule, Route
from nsmesh.datapath.linux import LinuxDatapath

pytestmark = pytest.mark.root


def test_a_wire_carries_both_families():
    """After apply each end has its addresses and routes, is up, marked, and reaches the other by ping."""

    async def main(a, b):
        datapath = LinuxDatapath()
        applied = await datapath.apply(lab.simple(a, b))
        assert applied.outcome == "created"
        end = lab.link(a, "nsm-1")
        assert (end["ifalias"], end["address"]) == ("nsm:w1", applied.a_mac)
        assert (end["num_tx_queues"], end["num_rx_queues"], end["mtu"]) == (1, 1, 1500)
        assert lab.link(b, "nse-1")["address"] == applied.b_mac
        assert lab.addresses(a, "nsm-1") == ["10.0.1.1/32", "fd00:1::1/128"]  # and no link-local one
        assert lab.routes(a, "nsm-1") == {("10.0.1.2", "")}
        assert lab.routes(a, "nsm-1", "-6") == {("fd00:1::2", "")}
        assert lab.pings(a, "10.0.1.2")
        assert lab.pings(a, "fd00:1::2")
        assert lab.pings(b, "10.0.1.1")
        await datapath.aclose()
        assert lab.names(a) == {"nsm-1"}  # wires outlive the driver

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_routes_are_global_and_boot_whatever_their_gateway():
    """Scope global and proto boot as other forwarders set them; a gateway is taken as on the link."""

    async def main(a, b):
        datapath = LinuxDatapath()
        port = KernelPort(
            a,
            "nsm-1",
            addresses=("10.0.0.1/32",),
            routes=(Route("10.0.0.2/32"), Route("172.16.5.4/16", "10.0.0.2"), Route("fd01::/32", "fd00::2")),
        )
        await datapath.apply(CrossConnect("w", port, KernelPort(b, "nse-1")))
        raw = lab.run(a, "ip", "-N", "-details", "route", "show", "dev", "nsm-1")
        assert "1 10.0.0.2 proto 3 scope 0" in raw
        assert "1 172.16.0.0/16 via 10.0.0.2 proto 3 scope 0 onlink" in raw
        assert lab.routes(a, "nsm-1", "-6") == {("fd01::/32", "fd00::2")}
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_macs_mtu_and_neighbours_are_as_asked():
    """MAC and MTU are there from the start, each end its own; neighbours are permanent."""

    async def main(a, b):
        datapath = LinuxDatapath()
        near = KernelPort(
            a,
            "nsm-1",
            mac="02:00:00:00:00:0a",
            mtu=1400,
            neighbours=(
                Neighbour("10.0.0.2", "02:00:00:00:00:0b"),
                Neighbour("fd00::2", "02:00:00:00:00:0b"),
            ),
        )
        applied = await datapath.apply(CrossConnect("w", near, KernelPort(b, "nse-1", mtu=9000)))
        assert applied.a_mac == "02:00:00:00:00:0a"
        assert lab.link(a, "nsm-1")["mtu"] == 1400
        assert lab.link(b, "nse-1")["mtu"] == 9000
        found = {(n["dst"], n["lladdr"], *n["state"]) for n in lab.ip(a, "neigh", "show", "nud", "permanent")}
        assert found == {
            ("10.0.0.2", "02:00:00:00:00:0b", "PERMANENT"),
            ("fd00::2", "02:00:00:00:00:0b", "PERMANENT"),
        }
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_policy_rules_lead_to_tables_of_their_own():
    """Each rule has its table with its routes, IPv4 default where none are given, and goes with the wire."""

    async def main(a, b):
        datapath = LinuxDatapath()
        policies = (
            PolicyRule("172.16.2.201/24", 6, None, (5555, 5557), (Route("172.16.3.0/24", "172.16.1.1"),)),
            PolicyRule("172.16.2.200/32"),
            PolicyRule("fd00::/64", 17, (53, 53), routes=(Route("::/0"),)),
        )
        wire = CrossConnect("w", KernelPort(a, "nsm-1", rules=policies), KernelPort(b, "nse-1"))
        await datapath.apply(wire)
        first, second = lab.rules(a)
        assert (first["src"], first["srclen"]) == ("172.16.2.0", 24)
        assert first["ipproto"] in {"tcp", "ipproto-6"}  # the second where there is no /etc/protocols
        assert (first["dport_start"], first["dport_end"]) == (5555, 5557)
        assert first["priority"] < second["priority"] < 32766
        assert lab.routes(a, "nsm-1") == set()  # nothing of it in the main table
        tables = [
            {
                (item["dst"], item.get("gateway", ""))
                for item in lab.ip(a, "route", "show", "table", rule["table"])
            }
            for rule in (first, second)
        ]
        assert tables == [{("172.16.3.0/24", "172.16.1.1")}, {("default", "")}]
        assert [rule["sport"] for rule in lab.rules(a, "-6")] == [53]
        await datapath.remove("w")
        assert lab.rules(a) == lab.rules(a, "-6") == []
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_transparent_end_has_nothing_of_ip():
    """numbered=False: up, but without any address, and with IPv6 off."""

    async def main(a, b):
        datapath = LinuxDatapath()
        near = KernelPort(a, "nsm-1", addresses=("10.0.0.1/32",), numbered=False)
        await datapath.apply(CrossConnect("w", near, KernelPort(b, "nse-1", addresses=("10.0.0.2/32",))))
        assert lab.addresses(a, "nsm-1") == []
        assert lab.routes(a, "nsm-1") == set()
        assert lab.sysctl(a, "net/ipv6/conf/nsm-1/disable_ipv6") == "1"
        assert "UP" in lab.link(a, "nsm-1")["flags"]
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_workloads_may_ping_and_use_ipv6():
    """ping_group_range is open in the namespace, and IPv6 on for the interface even where it is off."""

    async def main(a, b):
        lab.set_sysctl(a, "net/ipv6/conf/default/disable_ipv6", "1")
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b))
        for space in (a, b):
            assert lab.sysctl(space, "net/ipv4/ping_group_range").split() == ["0", "2147483647"]
        assert lab.sysctl(a, "net/ipv6/conf/nsm-1/disable_ipv6") == "0"
        assert lab.pings(a, "fd00:1::2")
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_ipv6_that_is_switched_off_later_is_switched_on_for_the_wire():
    """Somebody changes the namespace's default between two wires: the second one has IPv6 all the same."""

    async def main(a, b):
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b))
        lab.set_sysctl(a, "net/ipv6/conf/default/disable_ipv6", "1")
        await datapath.apply(lab.simple(a, b, "w2", 2))
        assert lab.addresses(a, "nsm-2") == ["10.0.2.1/32", "fd00:2::1/128"]
        assert lab.pings(a, "fd00:2::2")
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_namespace_of_the_host_keeps_its_settings():
    """Where the driver itself lives nothing but its own interfaces is touched."""

    async def main(a, b):
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b))
        await datapath.aclose()

    with lab.spaces() as (a, b):
        before = lab.sysctl(a, "net/ipv4/ping_group_range")
        lab.in_thread(a, lambda: asyncio.run(main(a, b)))
        assert lab.names(a) == {"nsm-1"}
        assert lab.sysctl(a, "net/ipv4/ping_group_range") == before
        assert lab.sysctl(b, "net/ipv4/ping_group_range") != before


def test_a_wire_within_one_namespace():
    """Both ends in one namespace, under two paths of it: they are a pair, adopted by the next driver too."""

    async def main(a):
        with lab.process_in(a) as pid:
            datapath = LinuxDatapath()
            wire = lab.simple(a, f"file:///proc/{pid}/ns/net")
            assert (await datapath.apply(wire)).outcome == "created"
            assert lab.names(a) == {"nsm-1", "nse-1"}
            assert (await datapath.apply(wire)).outcome == "unchanged"
            other = LinuxDatapath(namespaces=lambda: [a])
            assert (await other.apply(wire)).outcome == "unchanged"
            await other.remove("w1")
            await other.aclose()
            assert lab.names(a) == set()
            await datapath.aclose()

    with lab.spaces(1) as (a,):
        asyncio.run(main(a))


def test_a_descriptor_is_as_good_as_a_path():
    """A received descriptor (/proc/self/fd/N, also an O_PATH one) names a namespace."""

    async def main(a, b):
        datapath = LinuxDatapath()
        descriptor = os.open(a, os.O_PATH)
        try:
            await datapath.apply(lab.simple(f"file:///proc/{os.getpid()}/fd/{descriptor}", b))
        finally:
            os.close(descriptor)
        assert lab.names(a) == {"nsm-1"}
        # The path is dead now; the other end is enough to take the wire away.
        await datapath.remove("w1")
        await datapath.aclose()
        assert lab.names(a) == lab.names(b) == set()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_any_frame_passes_a_wire_as_it_is():
    """Payload ETHERNET: frames of unknown types, MPLS and broadcasts arrive byte by byte."""

    async def main(a, b):
        datapath = LinuxDatapath()
        applied = await datapath.apply(lab.simple(a, b))
        frames = [
            b"\xff" * 6 + mac + kind.to_bytes(2, "big") + os.urandom(size)
            for mac in [bytes.fromhex(applied.a_mac.replace(":", ""))]
            for kind, size in ((0x8847, 60), (0x8848, 1350), (0x88CC, 100), (0x9999, 46))
        ]
        raw = (socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with (
            netns.call_in(a, lambda: socket.socket(*raw)) as sender,
            netns.call_in(b, lambda: socket.socket(*raw)) as receiver,
        ):
            sender.bind(("nsm-1", 0))
            receiver.bind(("nse-1", 0))
            receiver.settimeout(2)
            for frame in frames:
                sender.send(frame)
                while (got := receiver.recv(2048))[12:14] != frame[12:14]:
                    pass
                assert got == frame
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_the_routes_of_others_come_back():
    """A prefix that another interface serves too goes through the wire while it stands, and back after."""

    async def main(a, b, c):
        lab.run(c, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far")
        lab.run(c, "ip", "link", "set", "eth0", "netns", a.rpartition("/")[2])
        lab.run(c, "ip", "link", "set", "far", "up")
        lab.run(a, "ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
        lab.run(a, "ip", "link", "set", "eth0", "up")
        lab.run(a, "ip", "route", "add", "default", "via", "192.0.2.254")
        lab.run(a, "ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
        datapath = LinuxDatapath()
        near = KernelPort(
            a,
            "nsm-1",
            addresses=("10.0.0.1/32", "fd00::1/128"),
            routes=(Route("0.0.0.0/0", "10.0.0.2"), Route("::/0", "fd00::2")),
        )
        wire = CrossConnect("w", near, KernelPort(b, "nse-1"))
        await datapath.apply(wire)
        for target in ("203.0.113.9", "2001:db8::9"):
            assert lab.ip(a, "route", "get", target)[0]["dev"] == "nsm-1"
        assert (await LinuxDatapath().apply(wire)).outcome == "unchanged"
        await datapath.remove("w")
        for target in ("203.0.113.9", "2001:db8::9"):
            assert lab.ip(a, "route", "get", target)[0]["dev"] == "eth0"
        await datapath.aclose()

    with lab.spaces(3) as (a, b, c):
        asyncio.run(main(a, b, c))
