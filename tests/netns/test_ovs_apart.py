"""A switch for each memif wire: a peer that ends its switch harms nobody else."""

from pathlib import Path

import datapath_lab as lab
import pytest
from memif_faults import Stream, begun, foreign_region, hostile
from ovs_lab import MEMORY, answering, kernel, listening, pings, reflecting, scenario, until

from nsmesh.core.errors import Unavailable
from nsmesh.datapath import ovs_programs, ovs_spread
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_programs import running

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(150),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]


def pid_of(switch):
    return running(switch.directory / "ovs-vswitchd.pid", "ovs-vswitchd")


async def owners(datapath):
    return [sorted(await switch.ports.owners()) for switch in datapath.switches]


def memif(datapath, pod, number):
    return CrossConnect(f"w{number}", kernel(pod, number), listening(datapath, f"{number}.memif"))


def test_a_peer_that_ends_its_switch_harms_its_own_wire_alone(tmp_path):
    """Three times: another peer's stream loses nothing, interfaces answer, and its own wire comes back."""

    async def body(make, pod, other):
        datapath = make(apart=True)
        near, bad = listening(datapath), listening(datapath, "2.memif")
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            await datapath.apply(memif(datapath, pod, 2))
            await datapath.apply(lab.simple(pod, other, "w3", 3))
            assert await owners(datapath) == [["w3"], ["w1"], ["w2"]]
            first, good, harmed = datapath.switches
            before = [pid_of(first), pid_of(good)]
            async with reflecting(near.socket):
                await begun(pod)
                stream = Stream(pod)
                async with stream.running():
                    for _ in range(3):
                        pid = pid_of(harmed)
                        await stream.more(50)
                        await until(Path(bad.socket).exists)
                        async with hostile(bad.socket) as talk:
                            foreign_region(talk)
                            await until(lambda: pid_of(harmed) not in {0, pid})  # noqa: B023 - now
                        await stream.more(50)
                        assert await pings(pod, 3)
            assert stream.lost == []
            assert [pid_of(first), pid_of(good)] == before
            await until(Path(bad.socket).exists)
            async with answering(bad.socket, 2):
                assert await pings(pod, 2, 30)
        await datapath.aclose()

    scenario(tmp_path, body, pods=2, memory=MEMORY)


def test_where_they_are_is_found_again_and_nothing_else_comes_there(tmp_path, monkeypatch):
    """Neither another memif wire, nor interfaces that need another switch; the error has the number."""
    monkeypatch.setattr(ovs_spread, "WIRES", 1)
    monkeypatch.setattr(ovs_spread, "RESERVE", 1)

    async def body(make, pod, other):
        first = make(apart=True, most=4)
        await first.apply(memif(first, pod, 1))
        await first.apply(memif(first, pod, 2))
        await first.aclose()
        datapath = make(apart=True, most=4)
        async with keeping(datapath.switches):
            assert (await datapath.apply(memif(datapath, pod, 1))).outcome == "unchanged"
            assert (await datapath.apply(memif(datapath, pod, 2))).outcome == "unchanged"
            await datapath.apply(lab.simple(pod, other, "w3", 3))
            more = datapath.switches.more
            await until(lambda: len(more) == 3 and more[4] in datapath.switches._spread.ready)
            await datapath.apply(lab.simple(pod, other, "w4", 4))
            assert (await owners(datapath))[1:3] == [["w1"], ["w2"]]
            with pytest.raises(Unavailable, match=r"switches of this node \(4\) has none") as told:
                await datapath.apply(memif(datapath, pod, 5))
            assert "NSM_MOST_SWITCHES" in told.value.remedy
            await datapath.remove("w1")
            await datapath.apply(memif(datapath, pod, 5))
            assert (await owners(datapath))[1:3] == [["w5"], ["w2"]]
            async with answering(listening(datapath, "5.memif").socket, 5):
                assert await pings(pod, 5, 20)
        await datapath.aclose()

    scenario(tmp_path, body, pods=2, memory=MEMORY)
