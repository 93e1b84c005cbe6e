"""More memif ends on a node than a switch takes: another switch is started, and ends when it is empty."""

import asyncio
import os
import re
import signal
from pathlib import Path

import datapath_lab as lab
import pytest
from ovs_lab import MEMORY, answering, driver, kernel, listening, pings, scenario

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.datapath import ovs_programs, ovs_switches
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.ovs_beside import space_of
from nsmesh.datapath.ovs_keeper import LOOK, keeping
from nsmesh.datapath.ovs_memif import MOST_MEMIF
from nsmesh.datapath.ovs_programs import running

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]


@pytest.fixture
def small(monkeypatch):
    """Have a switch be full with two memif ends."""
    monkeypatch.setattr(ovs_switches, "MOST_MEMIF", 2)


def wire(datapath, pod, number):
    return CrossConnect(f"w{number}", kernel(pod, number), listening(datapath, f"{number}.memif"))


def plain(pod, number):
    net = f"10.0.{number}"
    far = kernel(pod, number)
    return CrossConnect(f"w{number}", far, type(far)(pod, f"far-{number}", addresses=(f"{net}.2/32",)))


async def reached(datapath, pod, number):
    """Return whether a memif client at a wire's socket answers the pod."""
    async with answering(listening(datapath, f"{number}.memif").socket, number):
        return await pings(pod, number, seconds=20)


def pids(switches):
    """Return the pid of each ``ovs-vswitchd``, 0 for one that does not run."""
    return [running(one.directory / "ovs-vswitchd.pid", "ovs-vswitchd") for one in switches]


def ended(pid):
    """Whether a process has ended; somebody else may still have to ask for its end."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def polling(pid):
    """Return on which processors the polling thread of a switch runs."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    (thread,) = (task for task in tasks if (task / "comm").read_text().startswith("pmd"))
    return re.search(r"Cpus_allowed_list:\s*(\S+)", (thread / "status").read_text())[1]


async def gone(switches, number):
    """Wait until a switch has ended."""
    async with asyncio.timeout(20):
        while number in switches.more:  # noqa: ASYNC110 - daemons of another process
            await asyncio.sleep(0.05)


def test_forty_memif_ends_on_one_node(tmp_path):
    """Asked for at once they are at two switches, and memif clients of both answer pings."""

    async def body(make, pod):
        datapath = make()
        async with keeping(datapath.switches):
            numbers = range(1, 41)
            await asyncio.gather(*(datapath.apply(wire(datapath, pod, number)) for number in numbers))
            owners = [set(await switch.ports.owners()) for switch in datapath.switches]
            assert [len(one) for one in owners] == [MOST_MEMIF, 40 - MOST_MEMIF]
            assert set.union(*owners) == {f"w{number}" for number in numbers}
            for number in (1, 20, 31, 32, 40):
                assert await reached(datapath, pod, number), number
            assert len(set(map(polling, pids(datapath.switches)))) == min(2, len(os.sched_getaffinity(0)))
            await asyncio.gather(*(datapath.remove(f"w{number}") for number in numbers))
            assert not list((datapath.switch.directory / "sockets").glob("*.memif"))
        await datapath.aclose()

    scenario(tmp_path, body, memory=MEMORY)


def test_a_driver_that_starts_again_finds_the_wires_at_each_switch(tmp_path, small):
    """Nothing of them is made anew, no switch is started, those without owner go, and new ones find room."""

    async def body(make, pod):
        first = make()
        for number in (1, 2, 3, 4):
            await first.apply(wire(first, pod, number))
        before = pids(first.switches)
        assert len(before) == 2
        await first.aclose()
        second = make()
        async with keeping(second.switches):
            for number in (3, 1):
                assert (await second.apply(wire(second, pod, number))).outcome == "unchanged"
                assert await reached(second, pod, number)
            assert {one.id for one in await second.sweep({"w1", "w3"})} == {"w2", "w4"}
            for number in (5, 6, 7):
                await second.apply(wire(second, pod, number))
            assert pids(second.switches)[:2] == before
            found = [sorted(await switch.ports.owners()) for switch in second.switches]
            assert found == [["w1", "w5"], ["w3", "w6"], ["w7"]]
            assert await reached(second, pod, 7)
        await second.aclose()

    scenario(tmp_path, body, memory=MEMORY)


@pytest.mark.parametrize("together", [False, True], ids=["one", "both"])
def test_switches_that_are_killed_come_back_with_their_wires(tmp_path, small, together):
    """One or both, unasked; the other's clients keep their wire when it is one."""

    async def body(make, pod):
        datapath = make()
        async with keeping(datapath.switches):
            for number in (1, 2, 3):
                await datapath.apply(wire(datapath, pod, number))
            before = pids(datapath.switches)
            async with answering(listening(datapath, "1.memif").socket, 1) as peer:
                assert await pings(pod, 1)
                dead = set(before if together else before[1:])
                for pid in dead:
                    os.kill(pid, signal.SIGKILL)
                async with asyncio.timeout(30):
                    while 0 in (now := pids(datapath.switches)) or dead & set(now):  # noqa: ASYNC110 - daemons
                        await asyncio.sleep(0.02)
                assert (now[0] == before[0]) is not together
                if not together:
                    assert not peer.closed.is_set()
                    assert await pings(pod, 1)
            for number in (3, 1):
                async with asyncio.timeout(30):
                    while not Path(listening(datapath, f"{number}.memif").socket).exists():  # noqa: ASYNC110 - daemons
                        await asyncio.sleep(0.02)
                assert await reached(datapath, pod, number), number
        await datapath.aclose()

    scenario(tmp_path, body, memory=MEMORY)


def test_a_switch_without_wires_ends_and_the_first_one_stays(tmp_path, small, monkeypatch):
    """With its daemons, folder and namespace, after a while, by whichever driver; the next one is like it."""

    async def body(make, pod):
        datapath = make()
        folder, space = datapath.switch.directory / "2", Path(space_of(tmp_path, datapath.switch.node, 2))
        async with keeping(datapath.switches):
            for number in (1, 2, 3):
                await datapath.apply(wire(datapath, pod, number))
            _, pid = pids(datapath.switches)
            assert folder.exists()
            assert space.exists()
            await datapath.remove("w3")
            await asyncio.sleep(2 * LOOK)
            assert pids(datapath.switches)[1] == pid, "it lingers"
        await datapath.aclose()
        monkeypatch.setattr(ovs_switches, "LINGER", 0.5)
        later = make()
        async with keeping(later.switches):
            assert (await later.apply(wire(later, pod, 1))).outcome == "unchanged"
            await gone(later.switches, 2)
            assert ended(pid)
            assert not folder.exists()
            assert not space.exists()
            assert await reached(later, pod, 1)
            await later.apply(wire(later, pod, 3))
            assert await reached(later, pod, 3)
            assert len(pids(later.switches)) == 2
        await later.aclose()

    scenario(tmp_path, body, memory=MEMORY)


def test_no_more_switches_than_allowed_and_the_error_says_so(tmp_path, small):
    """The numbers are in it, nothing is left of the wire, and one that goes makes room."""

    async def body(make, pod):
        datapath = make(most=2)
        for number in (1, 2, 3, 4):
            await datapath.apply(wire(datapath, pod, number))
        with pytest.raises(
            Unavailable, match=r"switches of this node \(2\) have room for 2 memif ends each"
        ) as told:
            await datapath.apply(wire(datapath, pod, 5))
        assert "NSM_MOST_SWITCHES" in str(told.value.remedy)
        assert "nsm-5" not in lab.names(pod)
        assert (await datapath.apply(wire(datapath, pod, 4))).outcome == "unchanged"
        await datapath.apply(plain(pod, 6))
        assert await pings(pod, 6)
        await datapath.remove("w1")
        await datapath.apply(wire(datapath, pod, 5))
        assert await reached(datapath, pod, 5)
        await datapath.aclose()

    scenario(tmp_path, body, memory=MEMORY)


def test_a_wire_that_becomes_memif_moves_where_there_is_room(tmp_path, small):
    """From a first switch that is full to the second; as an interface again it stays there."""

    async def body(make, pod):
        datapath = make()
        for number in (1, 2):
            await datapath.apply(wire(datapath, pod, number))
        await datapath.apply(plain(pod, 3))
        assert await pings(pod, 3)
        await datapath.apply(wire(datapath, pod, 3))
        assert await reached(datapath, pod, 3)
        found = [sorted(await switch.ports.owners()) for switch in datapath.switches]
        assert found == [["w1", "w2"], ["w3"]]
        await datapath.apply(plain(pod, 3))
        assert await pings(pod, 3)
        await datapath.remove("w3")
        await datapath.aclose()
        assert lab.names(pod) == {"nsm-1", "nsm-2"}

    scenario(tmp_path, body, memory=MEMORY)


@pytest.mark.parametrize("most", [0, ovs_switches.LIMIT + 1])
def test_a_number_of_switches_that_cannot_be_is_refused(tmp_path, most):
    """With the setting's name."""
    with driver(tmp_path) as (make, _), pytest.raises(Invalid, match=f"not {most}") as told:
        make(most=most)
    assert "NSM_MOST_SWITCHES" in str(told.value.remedy)
