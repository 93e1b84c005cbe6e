"""Payloads by other ways than a pair or a tunnel: onto a VLAN, through a switch; and the MTU of each."""

import asyncio
import errno
from dataclasses import replace

import payload_lab
import pytest
import tunnel_lab
import vlan_lab
import vxlan_lab
from ovs_lab import driver
from test_payload_frames import FRAMED, KERNELS, PAYLOADS, bare, exchange, local, total

from nsmesh.datapath import netns, ovs_programs
from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.base import KernelPort
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.segments import SegmentDatapath
from nsmesh.datapath.vlans import VlanDatapath

pytestmark = pytest.mark.root
MTU = 1400
BRIDGED = ("runt", "IPv4 in name only", "IPv6 in name only", "half an IPv4 header")
"""Frames that a bridge may drop by itself, where the host's firewall looks at what is bridged."""
FILL = bytes(range(256)) * 6
LARGE = {
    "ETHERNET": [(0x9999, lambda size: FILL[:size])],
    "IP": [
        (0x0800, lambda size: payload_lab.v4(17, FILL[: size - 20])),
        (0x86DD, lambda size: payload_lab.v6(17, FILL[: size - 40])),
    ],
    "MPLS": [(0x8847, lambda size: payload_lab.LABEL + FILL[: size - 4])],
    "L2TP": [
        (0x0800, lambda size: payload_lab.v4(115, FILL[: size - 20])),
        (0x86DD, lambda size: payload_lab.v6(115, FILL[: size - 40])),
    ],
}
"""By payload, EtherTypes and what makes a packet of a size for each."""


@pytest.mark.skipif(bool(lacks("VLAN")), reason=lacks("VLAN"))
@pytest.mark.parametrize("limited", ["IP", "MPLS", "L2TP"])
def test_a_vlan_wire_lets_no_other_frames_pass(limited):
    """A pod of the VLAN that may send all frames gets and sends it no others; the outside as well."""

    async def main(found):
        made = VlanDatapath(node=found.node, owner="a", namespaces=lambda: found.pods)
        for pod, payload, mac in ((0, limited, vxlan_lab.NEAR_MAC), (1, "ETHERNET", vxlan_lab.FAR_MAC)):
            wire = vlan_lab.wire(found, pod, 100, payload=payload)
            end = KernelPort(found.pods[pod], "nsm-100", mac, wire.a.mtu, numbered=False)
            await made.apply(replace(wire, a=end))
        with payload_lab.ears((found.outside, "eth0")) as (outside,):
            assert exchange(tuple((pod, "nsm-100") for pod in found.pods), limited, BRIDGED) == []
            heard = payload_lab.heard(outside, 10_000, payload_lab.A, 0.2)
        wanted = [
            payload_lab.frame(name, payload_lab.A, payload_lab.B)[12:]
            for name in payload_lab.FRAMES
            if payload_lab.passes(limited, name)
        ]
        assert {frame[16:] for frame in heard} <= set(wanted)
        assert heard
        names = set(payload_lab.FRAMES) - set(BRIDGED)
        refused = sum(not payload_lab.passes(limited, name) for name in names)
        counted = {wire: sum(kinds.values()) for wire, kinds in made.refused().items()}
        assert counted == {"wire-0-100": 2 * refused}
        await made.aclose()

    with vlan_lab.place() as found:
        asyncio.run(main(found))


@pytest.mark.skipif(bool(ovs_programs.lacks_switch()), reason="Open vSwitch is not installed")
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_wire_through_a_switch_carries_its_payload_and_nothing_else(tmp_path, payload):
    """As a wire of the kernel alone: both ways, byte for byte; each frame that is refused is counted."""

    async def main(make, a, b):
        made = make()
        await made.apply(local(a, b, payload))
        but = KERNELS if payload == "ETHERNET" else ()
        assert exchange(((a, "one"), (b, "two")), payload, but) == []
        refused = sum(not payload_lab.passes(payload, name) for name in payload_lab.FRAMES)
        assert total(made.refused()) == 2 * refused
        await made.aclose()

    with driver(tmp_path, pods=2) as (make, a, b):
        asyncio.run(main(make, a, b))


@pytest.mark.skipif(bool(ovs_programs.lacks_switch()), reason="Open vSwitch is not installed")
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("kind", FRAMED)
def test_a_wire_from_a_switch_to_another_node_carries_its_payload_and_nothing_else(tmp_path, kind, payload):
    """With the kernel's forwarder at the other node: refused at the sender's end, either way."""
    tunnel_lab.able(kind)

    async def main(found, here):
        near, far = tunnel_lab.plugins(kind, framed=[1])
        agreed = tunnel_lab.wires(found, kind, payload=payload, near=near, far=far)
        first, second = (bare(wire) for wire in agreed)
        there = SegmentDatapath(node=found.b)
        await here.apply(first)
        await there.apply(second)
        ends = ((found.pod_a, "nsm-1"), (found.pod_b, "nse-1"))
        but = (
            (*KERNELS, "MPLS without a label") if payload == "ETHERNET" else ()
        )  # as where tunnels end apart
        assert exchange(ends, payload, but) == []
        refused = sum(not payload_lab.passes(payload, name) for name in payload_lab.FRAMES)
        assert (total(here.refused()), total(there.refused())) == (refused, refused)
        await here.aclose()
        await there.aclose()

    with vxlan_lab.nodes() as found:

        def make():
            return OvsDatapath(OwnSwitch(tmp_path / "ovs", found.a), namespaces=lambda: [found.pod_a])

        here = netns.call_in(found.a, make)  # its tunnels are in the namespace in which it is made
        try:
            asyncio.run(main(found, here))
        finally:
            asyncio.run(make().switch.stop())


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("where", ["local", "VXLAN"])
def test_a_frame_of_the_mtu_passes_for_each_payload(where, payload):
    """Made by hand: it comes byte for byte, and whoever sends one a byte larger hears EMSGSIZE."""

    def check(ends):
        with payload_lab.ears(*ends) as (near, far):
            passing = next(name for name in payload_lab.FRAMES if payload_lab.passes(payload, name))
            payload_lab.awaken(near, far, passing)
            for out, into, source, target in (
                (near, far, payload_lab.A, payload_lab.B),
                (far, near, payload_lab.B, payload_lab.A),
            ):
                for kind, packet in LARGE[payload]:
                    head = target + source + kind.to_bytes(2, "big")
                    with pytest.raises(OSError, match=r".") as told:
                        out.send(head + packet(MTU + 1))
                    assert told.value.errno == errno.EMSGSIZE
                    out.send(head + packet(MTU))
                    assert payload_lab.heard(into, 1, source) == [head + packet(MTU)]

    async def main(found):
        if where == "local":
            drivers, wires = [LinuxDatapath()], [local(found.pod_a, found.pod_b, payload)]
            wires = [replace(wires[0], a=replace(wires[0].a, mtu=MTU), b=replace(wires[0].b, mtu=MTU))]
        else:
            drivers = list(found.drivers())
            agreed = tunnel_lab.wires(found, "VXLAN", payload=payload, mtu=MTU + 50)
            wires = [bare(wire) for wire in agreed]
        for made, wire in zip(drivers, wires, strict=True):
            await made.apply(wire)
        names = ("one", "two") if where == "local" else ("nsm-1", "nse-1")
        check(tuple(zip((found.pod_a, found.pod_b), names, strict=True)))
        assert sum(total(made.refused()) for made in drivers) == 0
        for made in drivers:
            await made.aclose()

    with vxlan_lab.nodes(MTU + 50) as found:
        asyncio.run(main(found))
