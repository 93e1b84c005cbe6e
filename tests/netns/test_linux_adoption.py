import asyncio
from dataclasses import replace

import datapath_lab as lab
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsmesh.core.errors import Conflict
from nsmesh.datapath import netns, rtnetlink, veth
from nsmesh.datapath.base import CrossConnect, KernelPort, Neighbour, PolicyRule, Route
from nsmesh.datapath.inventory import LIVE_GROUP
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.netlink import Batch, Netlink

pytestmark = pytest.mark.root


def index_and_mac(path, name):
    found = lab.link(path, name)
    return found["ifindex"], found["address"]


def with_a(wire, **values):
    return replace(wire, a=replace(wire.a, **values))


def test_a_second_apply_asks_the_kernel_nothing(monkeypatch):
    """The same wish again is unchanged, and no netlink socket is even opened."""

    async def main(a, b):
        datapath = LinuxDatapath()
        first = await datapath.apply(lab.simple(a, b))
        monkeypatch.setattr("nsmesh.datapath.places.Netlink", None)
        again = await datapath.apply(lab.simple(a, b))
        assert (again.outcome, again.a_mac, again.b_mac) == ("unchanged", first.a_mac, first.b_mac)
        monkeypatch.undo()
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_restarted_driver_changes_nothing():
    """A new driver adopts what stands: unchanged, same index, same MAC, not one event of the kernel."""

    async def main(a, b):
        wire = with_a(
            lab.simple(a, b),
            rules=(PolicyRule(source="10.0.1.1/32", protocol=6, destination_ports=(1, 9)),),
            neighbours=(Neighbour("10.0.1.2", "02:00:00:00:00:01"),),
            mtu=1400,
        )
        await LinuxDatapath().apply(wire)
        before = index_and_mac(a, "nsm-1"), index_and_mac(b, "nse-1")
        monitor = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", a.rpartition("/")[2], "ip", "monitor", "all"),
            stdout=asyncio.subprocess.PIPE,
        )
        await asyncio.sleep(0.1)
        datapath = LinuxDatapath(namespaces=lambda: [a, b])
        assert (await datapath.apply(wire)).outcome == "unchanged"
        assert (index_and_mac(a, "nsm-1"), index_and_mac(b, "nse-1")) == before
        monitor.terminate()
        assert (await monitor.communicate())[0] == b""
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


@pytest.mark.parametrize("restarted", [False, True])
def test_only_what_differs_is_changed(restarted):
    """Addresses, routes, rules and MTU are exchanged in place; index and MAC stay."""

    async def main(a, b):
        datapath = LinuxDatapath()
        wire = with_a(lab.simple(a, b), rules=(PolicyRule(source="10.0.1.1/32"),))
        await datapath.apply(wire)
        before = index_and_mac(a, "nsm-1")
        wish = with_a(
            wire,
            addresses=("10.0.7.1/24", "fd00:7::1/64"),
            routes=(Route("10.0.1.2/32"), Route("10.8.0.0/16", "10.0.7.2")),
            rules=(PolicyRule(source="10.0.7.1/32"), PolicyRule(protocol=17)),
            mtu=1300,
        )
        if restarted:
            datapath = LinuxDatapath()
        applied = await datapath.apply(wish)
        assert applied.outcome == "changed"
        assert any("mtu" in detail for detail in applied.details)
        assert index_and_mac(a, "nsm-1") == before
        assert lab.addresses(a, "nsm-1") == ["10.0.7.1/24", "fd00:7::1/64"]
        assert lab.routes(a, "nsm-1") == {("10.0.1.2", ""), ("10.8.0.0/16", "10.0.7.2")}
        assert lab.routes(a, "nsm-1", "-6") == set()
        assert [rule["src"] for rule in lab.rules(a)] == ["10.0.7.1", "all"]
        assert lab.link(a, "nsm-1")["mtu"] == 1300
        assert (await LinuxDatapath().apply(wish)).outcome == "unchanged"
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_the_first_address_of_a_subnet_can_go():
    """Removing the primary address neither takes its secondaries along nor the routes of the interface."""

    async def main(a, b):
        datapath = LinuxDatapath()
        wire = with_a(
            lab.simple(a, b), addresses=("10.0.5.1/24", "10.0.5.2/24"), routes=(Route("10.0.1.2/32"),)
        )
        await datapath.apply(wire)
        await datapath.apply(with_a(wire, addresses=("10.0.5.2/24",)))
        assert lab.addresses(a, "nsm-1") == ["10.0.5.2/24"]
        assert lab.routes(a, "nsm-1") == {("10.0.1.2", "")}
        await datapath.apply(with_a(wire, addresses=("10.0.5.9/24",)))
        assert lab.addresses(a, "nsm-1") == ["10.0.5.9/24"]
        assert lab.routes(a, "nsm-1") == {("10.0.1.2", "")}
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_foreign_changes_are_mended():
    """What somebody added to the interface or took from it is set right by the next apply of a new driver."""

    async def main(a, b):
        await LinuxDatapath().apply(lab.simple(a, b))
        for argv in (
            "addr add 192.0.2.7/24 dev nsm-1",
            "addr del 10.0.1.1/32 dev nsm-1",
            "link set nsm-1 down",
            "addr add fe80::7/64 dev nsm-1",
        ):
            lab.run(a, "ip", *argv.split())
        applied = await LinuxDatapath().apply(lab.simple(a, b))
        assert applied.outcome == "changed"
        assert set(lab.addresses(a, "nsm-1")) == {"10.0.1.1/32", "fd00:1::1/128", "fe80::7/64"}
        assert lab.pings(a, "10.0.1.2")
        assert lab.pings(a, "fd00:1::2")

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_deleted_interface_is_made_again():
    """If somebody deletes the interface, the next refresh (the same apply) brings it back."""

    async def main(a, b):
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b))
        lab.run(a, "ip", "link", "del", "nsm-1")
        assert (await datapath.apply(lab.simple(a, b))).outcome == "created"
        assert lab.pings(a, "10.0.1.2")
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


@pytest.mark.parametrize("restarted", [False, True])
def test_an_end_that_moves_takes_nothing_behind(restarted):
    """Healing to another endpoint: same interface name at the client, the old endpoint's end is gone."""

    async def main(a, b, c):
        datapath = LinuxDatapath(namespaces=lambda: [a, b, c])
        await datapath.apply(lab.simple(a, b))
        if restarted:
            datapath = LinuxDatapath(namespaces=lambda: [a, b, c])
            await datapath.has()
        assert (await datapath.apply(lab.simple(a, c))).outcome == "changed"
        assert lab.pings(a, "10.0.1.2")
        await datapath.drain()
        assert (lab.names(a), lab.names(b), lab.names(c)) == ({"nsm-1"}, set(), {"nse-1"})
        await datapath.aclose()

    with lab.spaces(3) as (a, b, c):
        asyncio.run(main(a, b, c))


def test_a_name_is_free_as_soon_as_its_wire_is_removed():
    """Close and Request at once, same names: the new wire does not wait for the old one's deletion."""

    async def main(a, b):
        datapath = LinuxDatapath()
        for number in range(5):
            assert (await datapath.apply(lab.simple(a, b, f"w{number}"))).outcome == "created"
            await datapath.remove(f"w{number}")
        await datapath.aclose()
        assert lab.names(a) == lab.names(b) == set()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_has_sees_own_wires_only():
    """Both ends of each wire, of this owner; not what is closed, not other owners', not foreign links."""

    async def main(a, b):
        datapath = LinuxDatapath(owner="me")
        other = LinuxDatapath(owner="other", namespaces=lambda: [a, b])
        await datapath.apply(lab.simple(a, b))
        await datapath.apply(lab.simple(a, b, "w2", 2))
        await other.apply(lab.simple(a, b, "w3", 3))
        await datapath.remove("w2")
        found = await datapath.has()
        assert {(e.id, e.netns, e.name, e.up) for e in found} == {
            ("w1", a, "nsm-1", True),
            ("w1", b, "nse-1", True),
        }
        assert {e.id for e in await other.has()} == {"w3"}
        assert await other.sweep([]) != []
        await datapath.drain()
        assert lab.names(a) == {"nsm-1"}
        await datapath.aclose()
        await other.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_sweep_takes_what_nobody_owns():
    """After a crash: unowned wires, half-made ones, closed ones that were not deleted, orphaned rules."""

    async def main(a, b):
        dead = LinuxDatapath()
        for number in range(1, 4):
            wire = lab.simple(a, b, f"w{number}", number, rules=(PolicyRule(source=f"10.0.{number}.1/32"),))
            await dead.apply(wire)
        half_made(a)
        for path, name in ((a, "nsm-2"), (b, "nse-2")):
            index = lab.link(path, name)["ifindex"]
            netns.call_in(path, lambda index=index: closed(index))
        lab.run(a, "ip", "link", "del", "nsm-3")  # its rule stays behind
        assert len(lab.rules(a)) == 3
        datapath = LinuxDatapath(namespaces=lambda: [a, b])
        gone = await datapath.sweep(["w1"])
        assert gone == []
        assert (lab.names(a), lab.names(b)) == ({"nsm-1"}, {"nse-1"})
        assert [rule["src"] for rule in lab.rules(a)] == ["10.0.1.1"]
        assert {existing.id for existing in await datapath.sweep([])} == {"w1"}
        assert lab.names(a) == lab.names(b) == set()
        assert lab.rules(a) == []
        await datapath.aclose()

    def half_made(path):
        """As if the process had died between the pair's birth and its mark."""
        ends = [(90000 + n, f"half{n}", b"\2\0\0\0\0" + bytes([n]), 0) for n in (1, 2)]
        batch = Batch()
        batch.put(rtnetlink.new_veth(*ends, None, LIVE_GROUP))
        netns.call_in(path, lambda: send(batch))

    def closed(index):
        batch = Batch()
        batch.put(rtnetlink.set_up(index, up=False))
        batch.put(rtnetlink.set_group(index, veth.DOOMED_GROUP))
        send(batch)

    def send(batch):
        with Netlink() as netlink:
            assert netlink.send(batch) == []

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_restarted_driver_removes_by_id():
    """remove() finds wires by their mark in the namespaces that it is told of."""

    async def main(a, b):
        await LinuxDatapath().apply(lab.simple(a, b, rules=(PolicyRule(source="10.0.1.1/32"),)))
        datapath = LinuxDatapath(namespaces=lambda: [a])
        await datapath.remove("w1")
        await datapath.remove("w1")
        await datapath.aclose()
        assert lab.names(a) == lab.names(b) == set()
        assert lab.rules(a) == []

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_vanished_namespace_takes_the_wire_along():
    """The pod is gone: remove is fine, has shows nothing, and no cached socket kept the namespace alive."""

    async def main():
        with lab.spaces(1) as (b,):
            with lab.spaces(1) as (a,):
                datapath = LinuxDatapath()
                await datapath.apply(lab.simple(a, b))
            for _ in range(200):
                if not lab.names(b):
                    break
                await asyncio.sleep(0.02)
            assert lab.names(b) == set()
            assert await datapath.has() == []
            await datapath.remove("w1")
            await datapath.aclose()

    asyncio.run(main())


addresses = st.lists(
    st.sampled_from(
        ["10.1.0.1/24", "10.1.0.2/24", "10.1.0.3/32", "10.2.0.1/16", "fd00::1/64", "fd00::2/128"]
    ),
    unique=True,
    max_size=4,
).map(tuple)
wanted_routes = st.lists(
    st.builds(Route, st.sampled_from(["10.9.0.0/16", "10.1.0.9/32", "fd09::/32"])), max_size=3
).map(tuple) | st.just((Route("10.9.0.0/16", "10.1.0.9"), Route("fd09::/32", "fd00::9"), Route("0.0.0.0/0")))
ports = st.builds(
    lambda **values: values,
    addresses=addresses,
    routes=wanted_routes,
    mtu=st.sampled_from([0, 1300, 1500]),
    mac=st.sampled_from(["", "02:00:00:00:00:0a", "02:00:00:00:00:0c"]),
    neighbours=st.sampled_from([(), (Neighbour("10.1.0.9", "02:00:00:00:00:01"),)]),
    rules=st.lists(
        st.builds(PolicyRule, st.sampled_from(["", "10.1.0.0/24", "fd00::/64"]), st.sampled_from([None, 6])),
        max_size=2,
    ).map(tuple),
    numbered=st.sampled_from([True, True, True, False]),
)


def test_any_wish_is_reached_from_any_other():
    """Whatever a wire was, one apply makes the kernel as the next wish says, and then nothing differs."""
    with lab.spaces() as (a, b):
        datapath = LinuxDatapath()

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(ports)
        def check(port):
            async def main():
                wire = CrossConnect("w", KernelPort(a, "nsm-1", **port), KernelPort(b, "nse-1"))
                await datapath.apply(wire)
                again = await LinuxDatapath().apply(wire)
                assert (again.outcome, again.details) == ("unchanged", ())

            asyncio.run(main())

        check()
        asyncio.run(datapath.aclose())


def test_a_forwarder_of_another_name_takes_a_wire_over():
    """With the id of its predecessor the pair stays, under the new id; without it, it is somebody else's."""

    async def main(a, b):
        wire = lab.simple(a, b)
        await LinuxDatapath(owner="one").apply(wire)
        before = index_and_mac(a, "nsm-1"), index_and_mac(b, "nse-1")
        datapath = LinuxDatapath(owner="two", namespaces=lambda: [a, b])
        with pytest.raises(Conflict):
            await datapath.apply(replace(wire, id="new"))
        applied = await datapath.apply(replace(wire, id="new", formerly=wire.id))
        assert applied.outcome == "changed"
        assert (index_and_mac(a, "nsm-1"), index_and_mac(b, "nse-1")) == before
        assert {existing.id for existing in await datapath.has()} == {"new"}
        assert lab.pings(a, "10.0.1.2")
        await datapath.remove("new")
        await datapath.aclose()
        assert lab.names(a) == lab.names(b) == set()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))
