"""Payloads on real wires: what a wire of each payload carries, byte for byte, and that it counts the rest."""

import asyncio
from collections import Counter
from dataclasses import replace

import datapath_lab as lab
import payload_lab
import pytest
import tunnel_lab
import vxlan_lab

from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.linux import LinuxDatapath

pytestmark = pytest.mark.root
KERNELS = ("runt", "half an IPv4 header")
"""Frames that a VXLAN device of the kernel drops by itself."""
PAYLOADS = ["ETHERNET", "IP", "MPLS", "L2TP"]


def total(*counts):
    return sum(sum(kinds.values()) for found in counts for kinds in found.values())


def bare(wire):
    """Return a wire without addresses, so that nobody but the test sends anything."""
    ends = [
        KernelPort(port.netns, port.name, port.mac, port.mtu, numbered=False)
        if isinstance(port, KernelPort)
        else port
        for port in (wire.a, wire.b)
    ]
    return replace(wire, a=ends[0], b=ends[1])


def exchange(ends, payload, but=()):
    """Send all frames in both directions; return what was lost that should pass, and the reverse."""
    wrong = []
    names = [name for name in payload_lab.FRAMES if name not in but]
    shall = [name for name in names if payload_lab.passes(payload, name)]
    a, b = payload_lab.A, payload_lab.B
    with payload_lab.ears(*ends) as (near, far):
        payload_lab.awaken(near, far, shall[0])
        for out, into, macs in ((near, far, (a, b)), (far, near, (b, a))):
            for name in names:
                payload_lab.send(out, payload_lab.frame(name, *macs))
            came = Counter(payload_lab.heard(into, len(shall), macs[0]))
            wanted = Counter(payload_lab.frame(name, *macs) for name in shall)
            known = {payload_lab.frame(name, *macs): name for name in names}
            wrong += [f"lost: {known.get(one, one)}" for one in wanted - came]
            wrong += [f"passed: {known.get(one, one)}" for one in came - wanted]
    return wrong


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_local_wire_carries_its_payload_and_nothing_else(payload):
    """Both ways, byte for byte; what is refused is counted, each frame once."""

    async def main(a, b):
        driver = LinuxDatapath()
        mac = {"numbered": False}
        wire = CrossConnect(
            "w1",
            KernelPort(a, "one", vxlan_lab.NEAR_MAC, **mac),
            KernelPort(b, "two", vxlan_lab.FAR_MAC, **mac),
            payload,
        )
        await driver.apply(wire)
        assert exchange(((a, "one"), (b, "two")), payload) == []
        refused = sum(not payload_lab.passes(payload, name) for name in payload_lab.FRAMES)
        assert total(driver.refused()) == 2 * refused
        await driver.remove("w1")
        assert driver.refused() == {}
        await driver.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_wire_between_nodes_carries_its_payload_and_nothing_else(payload):
    """VXLAN: as a local wire; what is refused does not cross the underlay."""

    async def main(found):
        first, second = (bare(wire) for wire in tunnel_lab.wires(found, "VXLAN", payload=payload))
        here, there = found.drivers()
        await here.apply(first)
        await there.apply(second)
        ends = ((found.pod_a, "nsm-1"), (found.pod_b, "nse-1"))
        assert exchange(ends, payload, KERNELS if payload == "ETHERNET" else ()) == []
        refused = sum(not payload_lab.passes(payload, name) for name in payload_lab.FRAMES)
        assert total(here.refused(), there.refused()) == 2 * refused
        await here.aclose()
        await there.aclose()

    with vxlan_lab.nodes() as found:
        asyncio.run(main(found))
