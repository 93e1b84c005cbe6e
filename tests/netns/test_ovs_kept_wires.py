"""What becomes of a switch's part of a wire that others harm: its ports, the ends at them, its sockets."""

import asyncio

import datapath_lab as lab
import kinds_lab
import ovs_lab
import pytest
from kinds_lab import SPARE_PORTS, SWITCHED

from nsmesh.datapath import ovs_programs
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.ovs import names_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(ovs_programs.lacks_switch()), reason="Open vSwitch is not installed"),
]
WORDS = {"down": ("set", "down"), "deleted": ("delete",)}


def harmed(place, name, what):
    verb, *rest = WORDS[what]
    lab.run(place, "ip", "link", verb, name, *rest)


@pytest.mark.parametrize("what", WORDS)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kind", SWITCHED)
def test_an_end_of_ours_is_made_again(tmp_path, kind, side, what):
    """The end that leads to the switch, client's or endpoint's, is back; who has a pair of ports keeps it."""

    async def scenario(datapath):
        told = asyncio.Queue()
        datapath.watch(told.put_nowait)
        await datapath.apply(lab.simple(a, b))
        before = lab.link(a, "nsm-1")
        pair = await datapath.switch.ports.pair_with("w1")
        assert bool(pair) == (kind == SPARE_PORTS)
        place = datapath.switch.spares.place if pair else datapath.switch.node
        harmed(place, names_of("w1")[side], what)
        assert await asyncio.wait_for(told.get(), 10) == "w1"
        assert (await datapath.restore("w1")).outcome == "changed"
        assert await lab.pings_soon(a, "10.0.1.2")
        assert await datapath.switch.ports.pair_with("w1") == pair
        after = lab.link(a, "nsm-1")
        assert (after["ifindex"], after["address"]) == (before["ifindex"], before["address"])

    with lab.spaces() as (a, b):
        kinds_lab.run(scenario, kind, tmp_path, a, b)


@pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed")
def test_an_interface_whose_other_end_is_memif(tmp_path):
    """Deleted, it is back, and the memif peer was not parted from the switch; silenced, it has no carrier."""

    async def scenario(make, pod):
        datapath, told = make(), asyncio.Queue()
        datapath.watch(told.put_nowait)
        near = ovs_lab.listening(datapath)
        wire = CrossConnect("w1", ovs_lab.kernel(pod), near)
        try:
            await datapath.apply(wire)
            async with ovs_lab.answering(near.socket) as peer:
                assert await ovs_lab.pings(pod)
                harmed(pod, "nsm-1", "deleted")
                assert await asyncio.wait_for(told.get(), 10) == "w1"
                await datapath.restore("w1")
                assert await ovs_lab.pings(pod)
                assert peer.connected.is_set()
                await datapath.silence(["w1"])
                assert lab.carriers(pod) == set()
                await datapath.apply(wire)
                assert await ovs_lab.pings(pod)
        finally:
            await datapath.aclose()

    with ovs_lab.driver(tmp_path, memory=ovs_lab.MEMORY) as (make, pod):
        asyncio.run(scenario(make, pod))
