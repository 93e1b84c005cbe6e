"""Memif and vhost-user wires of a switch while things die or lie: numbered frames go round meanwhile."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import datapath_lab as lab
import pytest
from memif_faults import (
    Stream,
    begun,
    closed_eventfds,
    foreign_region,
    hostile,
    lying_lengths,
    wild_head,
    wild_head_of_its_own_ring,
)
from ovs_lab import (
    Echo,
    answering,
    kernel,
    killed,
    listening,
    needs_testpmd,
    pings,
    reflecting,
    sharing_memory,
    until,
    vhost,
)

from nsmesh.datapath import ovs_programs
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.memif.peer import connect
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_programs import running

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(150),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]
RECONNECTS = 1000


@asynccontextmanager
async def machine(path, tmp_path):
    """Have a testpmd with a virtio device send each frame back."""
    with Echo(tmp_path, "net_virtio_user0", f"path={path}", "queues=1", mode="macswap"):
        yield


@pytest.mark.parametrize("kind", ["memif", pytest.param("vhost-user", marks=needs_testpmd)])
def test_a_driver_that_starts_again_loses_no_packet(tmp_path, kind):
    """The next one takes the wire over in the middle of a stream, finds it unchanged, keeps the switch."""

    async def body(make, pod):
        first = make()
        memif = kind == "memif"
        near = listening(first) if memif else vhost(first)
        wire = CrossConnect("w1", kernel(pod), near)
        await first.apply(wire)
        peer = reflecting(near.socket) if memif else machine(near.socket, tmp_path)
        async with peer:
            await begun(pod)
            stream = Stream(pod)
            async with stream.running():
                await stream.more()
                await first.aclose()
                second = make()
                async with keeping(second.switches):
                    assert await second.sweep(["w1"]) == []
                    assert (await second.apply(wire)).outcome == "unchanged"
                    await stream.more()
        assert stream.lost == []
        await second.remove("w1")
        await second.aclose()

    sharing_memory(tmp_path, body)


@pytest.mark.parametrize("program", ["ovs-vswitchd", "ovsdb-server"])
def test_a_daemon_that_dies_in_the_middle_of_a_stream(tmp_path, program):
    """A new switch has the stream go on; without its database one pauses for a second and loses nothing."""

    async def body(make, pod):
        datapath = make()
        near = listening(datapath)
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            async with reflecting(near.socket):
                await begun(pod)
                stream = Stream(pod)
                async with stream.running():
                    await stream.more()
                    await killed(datapath, program)
                    await stream.more()
                assert stream.gap < 30
                if program == "ovsdb-server":
                    assert stream.lost == []
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_a_peer_that_connects_a_thousand_times_costs_the_switch_nothing(tmp_path):
    """The switch has as many descriptors afterwards as before, is the same, and serves."""

    async def body(make, pod):
        datapath = make()
        near = listening(datapath)
        await datapath.apply(CrossConnect("w1", kernel(pod), near))
        pid = running(datapath.switch.directory / "ovs-vswitchd.pid", "ovs-vswitchd")

        def descriptors():
            return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())

        async def once():
            peer = connect(near.socket, lambda _: None)
            await asyncio.wait_for(peer.connected.wait(), 20)
            peer.close()

        await once()
        await asyncio.sleep(0.2)
        before = descriptors()
        for _ in range(RECONNECTS):
            await once()
        await until(lambda: descriptors() <= before, why=lambda: f"{before} before, {descriptors()} now")
        async with answering(near.socket):
            assert await pings(pod, seconds=30)
        assert running(datapath.switch.directory / "ovs-vswitchd.pid", "ovs-vswitchd") == pid
        await datapath.aclose()

    sharing_memory(tmp_path, body)


@pytest.mark.parametrize("other", ["interface", "machine"])
def test_a_peer_that_breaks_the_rules_harms_its_own_wire(tmp_path, other):
    """Wild indexes, lengths that lie, closed eventfds: a stream beside loses nothing."""

    async def body(make, pod):
        datapath = make()
        near, bad = listening(datapath), listening(datapath, "bad.memif")
        pid_file = datapath.switch.directory / "ovs-vswitchd.pid"
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            far = vhost(datapath) if other == "machine" else kernel(pod, 2)
            await datapath.apply(CrossConnect("w2", far, bad))
            pid = running(pid_file, "ovs-vswitchd")
            async with reflecting(near.socket):
                await begun(pod)
                stream = Stream(pod)
                async with stream.running():
                    for lie in (wild_head, wild_head_of_its_own_ring, lying_lengths, closed_eventfds):
                        async with hostile(bad.socket) as talk:
                            lie(talk)
                            await stream.more(40)
            assert running(pid_file, "ovs-vswitchd") == pid
            assert stream.lost == []
            await datapath.apply(CrossConnect("w2", kernel(pod, 2), bad))
            async with answering(bad.socket, 2):
                assert await pings(pod, 2, 30)
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_a_peer_that_names_memory_that_is_not_there_may_end_the_switch_and_all_wires_come_back(tmp_path):
    """DPDK follows such a descriptor; the switch that follows the dead one has the wires of the others.

    Three times: the stream of another peer pauses and goes on by itself each time, the last wire is there,
    and a kernel wire through the same switch carries pings.
    """

    async def body(make, pod, other):
        datapath = make()
        near, bad = listening(datapath), listening(datapath, "bad.memif")
        pid_file = datapath.switch.directory / "ovs-vswitchd.pid"
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            await datapath.apply(CrossConnect("w2", kernel(pod, 2), bad))
            await datapath.apply(lab.simple(pod, other, "w3", 3))
            async with reflecting(near.socket):
                await begun(pod)
                for _ in range(3):
                    pid = running(pid_file, "ovs-vswitchd")
                    stream = Stream(pod)
                    async with stream.running():
                        await stream.more(50)
                        async with hostile(bad.socket) as talk:
                            foreign_region(talk)
                            await until(lambda: running(pid_file, "ovs-vswitchd") not in {0, pid})  # noqa: B023 - now
                        await stream.more(50)
                    assert stream.gap < 30
                    assert await pings(pod, 3, 30)
            assert len(await datapath.switch.ports.owners()) == 3
            async with answering(bad.socket, 2):
                assert await pings(pod, 2, 30)
        await datapath.aclose()

    sharing_memory(tmp_path, body, pods=2)
