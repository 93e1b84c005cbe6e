"""Wires through a switch onto VLANs of a NIC: exact tags, one Ethernet with those of the kernel's driver."""

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace

import datapath_lab as lab
import pytest
import vlan_lab
from node_lab import until
from ovs_lab import Echo, answering, listening, needs_testpmd, vhost
from vlan_lab import ODD, pinged

from nsmesh.datapath import netns
from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.base import TunnelRefused
from nsmesh.datapath.inventory import group_of
from nsmesh.datapath.leaks import leaks
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import lacks_dpdk, lacks_switch
from nsmesh.datapath.vlans import VlanDatapath, name_of

WHY = lacks("VLAN") or lacks_switch()
pytestmark = [pytest.mark.root, pytest.mark.timeout(150), pytest.mark.skipif(bool(WHY), reason=WHY)]


@contextmanager
def node_with_switch(tmp_path, **more):
    """Yield a place of :mod:`vlan_lab`, what makes drivers of its node, and where their switch lives."""
    with lab.spaces(1) as (space,), vlan_lab.place(**more) as found:

        def make(**given):
            switch = OwnSwitch(tmp_path / "ovs", space, **given)
            return OvsDatapath(switch, owner="a", namespaces=lambda: found.pods)

        try:
            yield SimpleNamespace(found=found, make=make, space=space)
        finally:
            asyncio.run(make().switches.stop())


def run(tmp_path, main, *, memory=0, **more):
    """Run a test where the node is: its forwarder lives there."""

    async def inside(lab_of_node):
        driver = lab_of_node.make(memory=memory)
        try:
            await main(lab_of_node.found, driver, lab_of_node.make)
        finally:
            await driver.aclose()

    with node_with_switch(tmp_path, **more) as made:
        netns.call_in(made.found.node, lambda: asyncio.run(inside(made)))


async def gone(space, *kept):
    """Wait until a namespace has no interface but those that are kept."""
    await asyncio.to_thread(until, lambda: lab.names(space) == set(kept))


@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
def test_a_host_outside_is_reached_through_the_switch(tmp_path, payload):
    """Both families, up to the very MTU, with the exact tag on the wire; with payload IP nothing else."""

    async def main(found, driver, make):
        wire = vlan_lab.wire(found, 0, 100, payload=payload)
        applied = await driver.apply(wire)
        assert (applied.outcome, applied.b_mac) == ("created", "")
        with vlan_lab.outsider(found, 100) as (v4, v6), vlan_lab.ear(found.outside, "eth0") as heard:
            await vlan_lab.exactly_tagged(found, v4, v6, heard)
            tagged = ODD[:12] + bytes.fromhex("8100 0064") + ODD[12:]
            with suppress(OSError):  # so the kernel tells of what it has refused
                vlan_lab.say(found.pods[0], "nsm-100", ODD)
            refuses = payload != "ETHERNET"
            assert vlan_lab.hear(heard, b"no packet", 0.5 if refuses else 2.0) == (
                None if refuses else tagged
            )
            vlan_lab.say(found.outside, "eth0", tagged)
            if refuses:
                await asyncio.to_thread(until, lambda: driver.refused()[wire.id]["other"] == 2)
            assert refuses == (wire.id in driver.refused())
        assert (await driver.apply(wire)).outcome == "unchanged"

    run(tmp_path, main, pods=1)


def test_wires_of_both_drivers_are_one_ethernet(tmp_path):
    """Two by a switch and one by the kernel's driver, on a VLAN of one node; one on another VLAN is apart."""

    async def main(found, driver, make):
        kernel = VlanDatapath(owner="b", namespaces=lambda: found.pods)
        await driver.apply(vlan_lab.wire(found, 0, 100))
        await driver.apply(vlan_lab.wire(found, 1, 100))
        await kernel.apply(vlan_lab.wire(found, 2, 100))
        await driver.apply(vlan_lab.wire(found, 3, 200))
        first, second, third, apart = found.pods
        with vlan_lab.outsider(found, 100) as (v4, _):
            for pod in (first, second, third):
                assert await pinged(pod, v4, count=20)
        for one, other in ((0, 1), (0, 2), (2, 1)):
            assert await pinged(found.pods[one], vlan_lab.host(vlan_lab.address6(other, 100)), count=20)
        for server, client, number in ((first, third, 0), (third, second, 2), (second, first, 1)):
            address = vlan_lab.host(vlan_lab.address4(number, 100))
            assert await asyncio.to_thread(vlan_lab.stream, server, client, address)
        shout = b"\xff" * 6 + bytes.fromhex("020000000001 9999") + b"to all of VLAN 100" * 3
        with vlan_lab.ear(apart, "nsm-200") as heard, vlan_lab.ear(second, "nsm-100") as friend:
            vlan_lab.say(first, "nsm-100", shout)
            assert vlan_lab.hear(friend, b"to all of VLAN 100") == shout
            assert vlan_lab.hear(heard, b"to all of VLAN 100", 0.3) is None
        await driver.remove("wire-0-100")
        await driver.remove("wire-1-100")
        with vlan_lab.outsider(found, 100, 252) as (v4, _):  # another MAC, so another address
            assert await pinged(third, v4, count=20)
        await kernel.aclose()

    run(tmp_path, main, pods=4)


@pytest.mark.parametrize("spares", [0, 2], ids=["ports of its own", "ports in advance"])
def test_a_restarted_driver_takes_it_over_and_nothing_stays(tmp_path, spares):
    """Nothing is changed, and packets pass without a driver; what nobody owns goes, the NIC is as it was."""

    async def main(found, driver, make):
        wires = [vlan_lab.wire(found, pod, 100) for pod in (0, 1)]
        for wire in wires:
            await driver.apply(wire)
        again = make(spares=spares)
        await again.has()
        with vlan_lab.outsider(found, 100) as (v4, _):
            assert await pinged(found.pods[0], v4, count=20)
            assert [(await again.apply(wire)).outcome for wire in wires] == ["unchanged"] * 2
            assert await pinged(found.pods[1], v4, count=20)
        last = make(spares=spares)
        assert {item.id for item in await last.sweep(["wire-0-100"])} == {"wire-1-100"}
        assert any(name.endswith("b100") for name in lab.names(found.node))
        await last.sweep([])
        await gone(found.node, vlan_lab.NIC)
        assert await last.switch.ports.owners() == {}
        assert "PROMISC" not in lab.link(found.node, vlan_lab.NIC)["flags"]
        assert lab.run(found.node, "tc", "filter", "show", "dev", vlan_lab.NIC, "ingress") == ""
        for one in (again, last):
            await one.aclose()

    run(tmp_path, main)


def test_a_node_that_lost_its_way_out_says_so(tmp_path):
    """A NIC that is not there is told, and nothing is left; the audit finds a bridge that nobody uses."""

    async def main(found, driver, make):
        await driver.apply(vlan_lab.wire(found, 0, 100))
        index = lab.link(found.node, vlan_lab.NIC)["ifindex"]
        owned = {group_of("a/ovs-a"): {"wire-0-100"}, group_of("a/ovs-b"): {"wire-0-100"}}
        assert leaks([found.node], owned) == []
        lab.run(found.node, "ip", "link", "delete", vlan_lab.NIC)
        with pytest.raises(TunnelRefused, match=f"this node has no interface {vlan_lab.NIC} for VLAN 100"):
            await driver.apply(vlan_lab.wire(found, 1, 100))
        await gone(found.pods[1])
        assert set(await driver.switch.ports.owners()) == {"wire-0-100"}
        with pytest.raises(TunnelRefused, match="this node has no interface"):
            await driver.apply(vlan_lab.wire(found, 0, 100))
        lab.run(found.node, "ip", "link", "delete", name_of("wire-0-100"))
        assert f"vl{index:x}b100" in {one.name for one in leaks([found.node], owned)}
        await driver.sweep([])
        await gone(found.node)
        assert leaks([found.node], owned) == []

    run(tmp_path, main)


def test_what_was_taken_away_is_made_again(tmp_path):
    """The pod's end, deleted, is back on its VLAN; so is a bridge, with the next apply."""

    async def main(found, driver, make):
        wire = vlan_lab.wire(found, 0, 100)
        driver.watch(lambda _: None)
        await driver.apply(wire)
        index = lab.link(found.node, vlan_lab.NIC)["ifindex"]
        with vlan_lab.outsider(found, 100) as (v4, _):
            assert await pinged(found.pods[0], v4, count=20)
            lab.run(found.pods[0], "ip", "link", "delete", "nsm-100")
            assert (await driver.restore(wire.id)).outcome == "changed"
            assert await pinged(found.pods[0], v4, count=20)
            lab.run(found.node, "ip", "link", "delete", name_of(wire.id))
            assert (await driver.restore(wire.id)).outcome == "changed"
            assert await pinged(found.pods[0], v4, count=20)
            lab.run(found.node, "ip", "link", "delete", f"vl{index:x}b100")
            assert (await driver.apply(wire)).outcome == "changed"
            assert await pinged(found.pods[0], v4, count=20)

    run(tmp_path, main, pods=1)


@pytest.mark.skipif(bool(lacks_dpdk()), reason=lacks_dpdk())
@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
def test_a_memif_client_is_on_a_vlan(tmp_path, payload):
    """A process of user space answers a pod of the kernel's driver; with payload IP it hears nothing else."""

    async def main(found, driver, make):
        near = listening(driver)
        wire = await beside_a_pod(found, driver, near, payload)
        async with answering(near.socket):
            assert await pinged(found.pods[0], "10.0.1.2", count=20)
        vlan_lab.say(found.pods[0], "nsm-100", ODD)
        if payload == "IP":
            await asyncio.to_thread(until, lambda: driver.refused()[wire.id]["other"] == 1)
        await driver.remove(wire.id)
        assert driver.refused().get(wire.id) is None

    run(tmp_path, main, memory=256, pods=1)


@needs_testpmd
@pytest.mark.skipif(bool(lacks_dpdk()), reason=lacks_dpdk())
def test_a_vhost_user_client_is_on_a_vlan(tmp_path):
    """The same by way of a virtio device of DPDK."""

    async def main(found, driver, make):
        near = vhost(driver)
        await beside_a_pod(found, driver, near)
        with Echo(tmp_path, "net_virtio_user0", f"path={near.socket}", "queues=1"):
            assert await pinged(found.pods[0], "10.0.1.2", count=40)

    run(tmp_path, main, memory=256, pods=1)


async def beside_a_pod(found, driver, near, payload="ETHERNET"):
    """Put a socket onto the VLAN of a pod that the kernel's driver has put there; return its wire."""
    kernel = VlanDatapath(owner="b", namespaces=lambda: found.pods)
    pod = vlan_lab.wire(found, 0, 100)
    await kernel.apply(pod)
    await kernel.aclose()
    lab.run(found.pods[0], "ip", "route", "add", "10.0.1.2/32", "dev", "nsm-100")
    wire = replace(pod, id="memory", a=near, payload=payload)
    await driver.apply(wire)
    return wire
