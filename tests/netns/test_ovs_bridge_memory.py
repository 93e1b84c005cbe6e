"""VLANs by a bridge of somebody else's whose switch runs DPDK: user-space clients, a NIC of DPDK's own."""

import asyncio
import os

import bridge_lab
import datapath_lab as lab
import pytest
import vlan_lab
from ovs_lab import Echo, answering, listening, needs_testpmd, vhost
from test_ovs_bridge_faults import far_port
from their_switch import NIC, OUT, WITH_DPDK
from vlan_lab import ODD, pinged

from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.ovs import names_of
from nsmesh.datapath.ovs_programs import lacks_dpdk

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(150),
    pytest.mark.skipif(bool(lacks_dpdk()), reason=lacks_dpdk()),
]


def owning(switch):
    """Have DPDK own the NIC of their bridge, as a device that it polls, by a packet socket."""
    switch.vsctl("del-port", OUT, NIC)
    device = f"options:dpdk-devargs=net_af_packet0,iface={NIC}"
    switch.vsctl("add-port", OUT, NIC, "--", "set", "interface", NIC, "type=dpdk", device)
    assert switch.vsctl("get", "interface", NIC, "error").strip() == "[]"


def sharing_memory(tmp_path, body, prepare=lambda switch: None):
    """Run a test with a driver and a pod on VLAN 100, where DPDK runs in their switch, which is prepared."""

    async def main(place):
        driver = place.make(memory=256)
        try:
            await driver.apply(place.wire(0, 100))
            lab.run(place.found.pods[0], "ip", "route", "add", "10.0.1.2/32", "dev", "nsm-100")
            await body(place, driver)
            assert place.switch.far_ports() == {far_port(place.wire(0, 100)): 100}
        finally:
            await driver.switches.stop()
            await driver.aclose()
        assert place.switch.far_ports() == {}

    with bridge_lab.ground(tmp_path, pods=1, program=WITH_DPDK) as place:
        extra = f"--no-huge --legacy-mem -m 256 --no-pci --file-prefix=their{os.getpid()}"
        place.switch.vsctl("set", "Open_vSwitch", ".", f"other_config:dpdk-extra={extra}")
        place.switch.vsctl("set", "Open_vSwitch", ".", "other_config:dpdk-init=true")
        prepare(place.switch)
        netns.call_in(place.found.node, lambda: asyncio.run(main(place)))


@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
def test_a_memif_client_is_on_a_vlan(tmp_path, payload):
    """It answers a pod by a port of one ring; with payload IP flows refuse what is none, both ways."""

    async def body(place, driver):
        near = listening(driver)
        wire = CrossConnect("memory", near, place.wire(0, 100).b, payload)
        await driver.apply(wire)
        devices = place.switch.vsctl("get", "interface", names_of(wire.id)[0], "options:dpdk-devargs")
        assert "net_failsafe" in devices
        assert list(place.switch.far_ports().values()) == [100, 100]
        async with answering(near.socket) as peer:
            assert await pinged(place.found.pods[0], "10.0.1.2", count=20)
            with vlan_lab.ear(place.found.pods[0], "nsm-100") as heard:
                peer.send([ODD])
                assert vlan_lab.hear(heard, b"no packet", 0.5) == (ODD if payload == "ETHERNET" else None)
        vlan_lab.say(place.found.pods[0], "nsm-100", ODD)
        counted = driver.switch.ports.refused
        if payload == "IP":
            async with asyncio.timeout(10):
                while (await counted()).get(wire.id, {}).get("other") != 2:  # noqa: ASYNC110 - its counters
                    await asyncio.sleep(0.1)
        else:
            assert await counted() == {}
        assert (await driver.apply(wire)).outcome == "unchanged"
        await driver.remove(wire.id)

    sharing_memory(tmp_path, body)


@needs_testpmd
def test_a_vhost_user_client_is_on_a_vlan(tmp_path):
    """The same by way of a virtio device of DPDK."""

    async def body(place, driver):
        near = vhost(driver)
        await driver.apply(CrossConnect("memory", near, place.wire(0, 100).b))
        with Echo(tmp_path, "net_virtio_user0", f"path={near.socket}", "queues=1"):
            assert await pinged(place.found.pods[0], "10.0.1.2", count=40)
        await driver.remove("memory")

    sharing_memory(tmp_path, body)


def test_a_nic_that_dpdk_owns_leads_out(tmp_path):
    """A pod and a memif client on VLAN 100 reach a host outside, with the exact tag, and each other."""

    async def body(place, driver):
        near = listening(driver)
        await driver.apply(CrossConnect("memory", near, place.wire(0, 100).b))
        found = place.found
        async with answering(near.socket):
            assert await pinged(found.pods[0], "10.0.1.2", count=20)
            with vlan_lab.outsider(found, 100) as (v4, v6), vlan_lab.ear(found.outside, "eth0") as heard:
                assert await pinged(found.pods[0], v4, 1472, count=20)
                assert await pinged(found.pods[0], v6)
                frame = vlan_lab.hear(heard, bytes(range(0x10, 0x30)))
                assert frame is not None
                assert frame[12:18] == bytes.fromhex("8100 0064 0800")
                lab.run(found.outside, "ip", "route", "add", "10.0.1.2/32", "dev", "eth0.100")
                assert await pinged(found.outside, "10.0.1.2", 1472, count=20)
        await driver.remove("memory")

    sharing_memory(tmp_path, body, owning)
