"""Wires of a switch with DPDK: memif and vhost-user at one end, an interface at the other."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
from dataclasses import replace
from pathlib import Path

import datapath_lab as lab
import ovs_lab
import pytest
from ovs_lab import MAC, Echo, answering, driver, held, kernel, listening, needs_testpmd, pings, there

from nsmesh.core.errors import MeshError, Refused
from nsmesh.datapath import ovs_programs
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.memif.answers import Answers
from nsmesh.datapath.memif.conversation import Server
from nsmesh.datapath.memif.messages import Hello
from nsmesh.datapath.memif.peer import listen
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_memif import MOST_MEMIF
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import running
from nsmesh.datapath.ovs_wear import MEMORY
from nsmesh.datapath.payload_counts import REFUSED
from nsmesh.model.wire import MemifPort, VhostUserPort

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(90),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]


def scenario(tmp_path, body, memory=ovs_lab.MEMORY, **given):
    async def main(make, pod):
        async with asyncio.timeout(80):
            datapath = make()
            try:
                await body(datapath, pod)
            finally:
                await datapath.aclose()

    with driver(tmp_path, memory=memory, **given) as (make, pod):
        asyncio.run(main(make, pod))


def test_an_interface_and_a_memif_client_of_one_ring(tmp_path):
    """Pings pass between them; the peer may come and go many times; nothing is left after remove.

    From the first such wire on a metric tells DPDK's memory.
    """

    async def body(datapath, pod):
        assert await MEMORY.samples() == []
        near = listening(datapath)
        wire = CrossConnect("w1", kernel(pod), near)
        assert (await datapath.apply(wire)).outcome == "created"
        told = {one.labels["state"]: one.value for one in await MEMORY.samples()}
        assert min(told["free"], told["used"]) > 1 << 20
        assert 200 << 20 < told["free"] + told["used"] < 300 << 20
        assert stat.S_ISSOCK(Path(near.socket).stat().st_mode)
        for _ in range(4):
            async with answering(near.socket):
                assert await pings(pod)
        assert (await datapath.apply(wire)).outcome == "unchanged"
        async with answering(near.socket):
            assert await pings(pod)
        await datapath.remove("w1")
        assert await datapath.switch.ports.owners() == {}
        assert not Path(near.socket).exists()
        await datapath.aclose()
        assert lab.names(pod) == set()

    scenario(tmp_path, body)


def test_an_interface_and_a_memif_endpoint_that_listens(tmp_path):
    """The switch connects to it; an endpoint that starts again has the wire again, with its next refresh."""

    async def body(datapath, pod):
        path = tmp_path / "nse.sock"
        async with keeping(datapath.switches):
            for _ in range(2):
                listener = listen(str(path), Answers(MAC, ["10.0.1.2"]))
                with held(path) as held_path:
                    wire = CrossConnect("w1", kernel(pod), MemifPort(held_path, listens=True))
                    await datapath.apply(wire)
                    assert await pings(pod, seconds=25)
                    listener.close()

    scenario(tmp_path, body)


def test_a_listener_that_takes_one_ring_and_promises_more(tmp_path, monkeypatch):
    """As libmemif does by default: whoever brings a second one is cut off."""
    monkeypatch.setattr(Server, "start", lambda self: [(Hello("as libmemif", max_ring=255), None)])

    async def body(datapath, pod):
        path = tmp_path / "nse.sock"
        listener = listen(str(path), Answers(MAC, ["10.0.1.2"]))
        with held(path) as held_path:
            wire = CrossConnect("w1", kernel(pod), MemifPort(held_path, listens=True))
            await datapath.apply(wire)
            assert await pings(pod)
            listener.close()

    scenario(tmp_path, body)


def test_a_peer_that_never_connects_costs_nothing_but_its_wire(tmp_path):
    """The wire is made, the next one carries frames, and both go."""

    async def body(datapath, pod):
        await datapath.apply(CrossConnect("w1", kernel(pod), listening(datapath)))
        other = listening(datapath, "y.memif")
        await datapath.apply(CrossConnect("w2", kernel(pod, 2), other))
        async with answering(other.socket, 2):
            assert await pings(pod, 2)
        for wire in ("w1", "w2"):
            await datapath.remove(wire)
        assert await datapath.switch.ports.owners() == {}

    scenario(tmp_path, body)


def test_an_endpoint_that_does_not_listen_is_told_and_leaves_nothing(tmp_path):
    """The error is one sentence; the interface is gone again."""

    async def body(datapath, pod):
        path = tmp_path / "dead.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
            dead.bind(str(path))
        with held(path) as held_path:
            wire = CrossConnect("w1", kernel(pod), MemifPort(held_path, listens=True))
            with pytest.raises(MeshError, match="w1"):
                await datapath.apply(wire)
        assert await datapath.switch.ports.owners() == {}
        await datapath.aclose()
        assert lab.names(pod) == set()

    scenario(tmp_path, body)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (MemifPort("/run/theirs.sock", listens=True), "descriptor"),
        (MemifPort("@theirs", "/run/netns/x", listens=True), "descriptor"),
        (VhostUserPort("/run/theirs.sock"), "descriptor"),
        (MemifPort("/run/theirs.sock"), "outside of its folder"),
        (VhostUserPort("/etc/theirs.sock", listens=False), "outside of its folder"),
    ],
)
def test_a_path_that_others_choose_is_neither_opened_nor_made(tmp_path, end, said):
    """The switch is root: it opens what came as a descriptor, and listens in its own folder alone."""

    async def body(datapath, pod):
        with pytest.raises(Refused, match=said):
            await datapath.apply(CrossConnect("w1", kernel(pod), end))
        assert await datapath.switch.ports.owners() == {}
        await datapath.aclose()
        assert lab.names(pod) == set()

    scenario(tmp_path, body)


@pytest.mark.parametrize("program", ["ovs-vswitchd", "ovsdb-server"])
def test_a_switch_that_is_killed_comes_back_with_its_memif_wires(tmp_path, program):
    """Both roles: a client that connects again and an endpoint that listens on are reached, unasked."""

    async def body(datapath, pod):
        near = listening(datapath)
        path = tmp_path / "nse.sock"
        listener = listen(str(path), Answers(MAC, ["10.0.2.2"]))
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            with held(path) as held_path:
                wire = CrossConnect("w2", kernel(pod, 2), MemifPort(held_path, listens=True))
                await datapath.apply(wire)
                async with answering(near.socket):
                    assert await pings(pod)
                    assert await pings(pod, 2)
                pid_file = datapath.switch.directory / f"{program}.pid"
                pid = running(pid_file, program)
                os.kill(pid, signal.SIGKILL)
                async with asyncio.timeout(20):
                    while running(pid_file, program) in {0, pid}:  # noqa: ASYNC110 - no child of ours
                        await asyncio.sleep(0.02)
                    while not Path(near.socket).exists():  # noqa: ASYNC110 - likewise
                        await asyncio.sleep(0.02)
                assert await pings(pod, 2, 20)
                await asyncio.sleep(0.3)
                async with answering(near.socket):
                    assert await pings(pod)
        listener.close()

    scenario(tmp_path, body)


def test_memory_that_does_not_suffice_is_said_with_its_number(tmp_path):
    """The error names the MiB and the setting, and nothing is left."""

    async def body(datapath, pod):
        with pytest.raises(MeshError, match=r"16 MiB.*NSM_DPDK_MEMORY"):
            await datapath.apply(CrossConnect("w1", kernel(pod), listening(datapath)))
        assert await datapath.switch.ports.owners() == {}
        await datapath.aclose()
        assert lab.names(pod) == set()

    scenario(tmp_path, body, memory=16)


@needs_testpmd
def test_an_interface_and_a_testpmd_of_one_memif_ring(tmp_path):
    """DPDK's own memif client, with the one ring that it has by default, answers pings; so does the next one.

    It ends by SIGKILL, and says nothing to the switch.
    """

    async def body(datapath, pod):
        near = listening(datapath)
        await datapath.apply(CrossConnect("w1", kernel(pod), near))
        device = ("net_memif0", "role=client", "id=0", f"socket={near.socket}", "socket-abstract=no")
        for _ in range(2):
            with Echo(tmp_path, *device):
                assert await pings(pod, seconds=30)

    scenario(tmp_path, body)


@needs_testpmd
@pytest.mark.parametrize("machine_listens", [True, False], ids=["machine listens", "switch listens"])
def test_an_interface_and_a_vhost_user_machine(tmp_path, machine_listens):
    """In both modes; a machine that starts again has its wire again."""

    async def body(datapath, pod):
        path = tmp_path / "vm.sock"
        own = Path(datapath.switch.directory / "sockets" / "x.vhost")

        def machine():
            where = (f"path={path}", "server=1") if machine_listens else (f"path={own}",)
            return Echo(tmp_path, "net_virtio_user0", *where, "queues=1")

        async def wired(socket, *, listens):
            await datapath.apply(CrossConnect("w1", kernel(pod), VhostUserPort(socket, listens=listens)))

        async with keeping(datapath.switches):
            if not machine_listens:
                await wired(str(own), listens=False)
            for _ in range(2):
                path.unlink(missing_ok=True)
                with machine(), contextlib.ExitStack() as stack:
                    if machine_listens:
                        await there(path)
                        await wired(stack.enter_context(held(path)), listens=True)
                    assert await pings(pod, seconds=30)
        await datapath.remove("w1")
        assert await datapath.switch.ports.owners() == {}
        assert not own.is_symlink()

    scenario(tmp_path, body)


async def refused(wire, *, seconds=0.0, more_than=0):
    """Return what the metric tells of a wire, by kind of frame; wait a while for so many of a kind.

    The first frame is counted at once, the next ones half a second late.
    """
    end = asyncio.get_running_loop().time() + seconds
    while True:
        samples = await REFUSED.samples()
        found = {one.labels["frame"]: one.value for one in samples if one.labels["connection"] == wire}
        if max(found.values(), default=0) > more_than or asyncio.get_running_loop().time() >= end:
            return found
        await asyncio.sleep(0.1)


@needs_testpmd
@pytest.mark.parametrize("payload", ["IP"])
def test_two_vhost_user_machines(tmp_path, payload):
    """Frames of one come to the other and back, by the switch alone, before and after it was killed.

    Then the wire's payload becomes MPLS, and not one of these frames, which are IPv4, comes any more; they
    are counted, and another apply does not begin anew.
    """

    async def body(datapath, pod):
        own = [Path(datapath.switch.directory / "sockets" / f"{name}.vhost") for name in "xy"]
        wire = CrossConnect("w1", *(VhostUserPort(str(path), listens=False) for path in own), payload)

        def both(stack):
            for path, mode in zip(own, ("macswap", "flowgen"), strict=True):
                folder = tmp_path / mode
                folder.mkdir(exist_ok=True)
                device = ("net_virtio_user0", f"path={path}", "queues=1")
                yield stack.enter_context(Echo(folder, *device, mode=mode))

        async def received(machines):
            for machine in machines:
                machine.received()
            await asyncio.sleep(0.5)
            return min(machine.received() for machine in machines)

        async with keeping(datapath.switches):
            await datapath.apply(wire)
            for again in (False, True):
                with contextlib.ExitStack() as stack:
                    machines = list(both(stack))
                    async with asyncio.timeout(30):
                        while await received(machines) < 1000:
                            pass
                if not again:
                    pid_file = datapath.switch.directory / "ovs-vswitchd.pid"
                    pid = running(pid_file, "ovs-vswitchd")
                    os.kill(pid, signal.SIGKILL)
                    async with asyncio.timeout(20):
                        while running(pid_file, "ovs-vswitchd") in {0, pid} or not own[0].exists():  # noqa: ASYNC110 - no child of ours
                            await asyncio.sleep(0.05)
            await datapath.apply(replace(wire, payload="MPLS"))
            with contextlib.ExitStack() as stack:
                machines = list(both(stack))
                await asyncio.sleep(3)
                assert [machine.received() for machine in machines] == [0, 0]
                await asyncio.sleep(0.5)
                assert [machine.received() for machine in machines] == [0, 0]
                found = await refused("w1", seconds=30, more_than=100)
                assert set(found) == {"ipv4"}
            await datapath.apply(replace(wire, payload="MPLS"))
            assert (await refused("w1"))["ipv4"] >= found["ipv4"] > 100
            another = OwnSwitch(datapath.switch.directory).ports
            assert set(await another.refused({"w1"})) == {"w1"}
            assert await another.refused({"w2"}) == {}
            await another.close()
        await datapath.remove("w1")
        assert await refused("w1") == {}
        assert await datapath.switch.ports.owners() == {}

    scenario(tmp_path, body)


@needs_testpmd
def test_a_testpmd_that_listens_for_memif_needs_two_rings(tmp_path):
    """It offers more rings than it has: the switch opens two, and with two queues pings pass."""

    async def body(datapath, pod):
        path = tmp_path / "nse.sock"
        device = ("net_memif0", "role=server", "id=0", f"socket={path}", "socket-abstract=no")
        with Echo(tmp_path, *device, queues=2):
            await there(path)
            await asyncio.sleep(0.5)
            with held(path) as held_path:
                wire = CrossConnect("w1", kernel(pod), MemifPort(held_path, listens=True))
                async with keeping(datapath.switches):
                    await datapath.apply(wire)
                    assert await pings(pod, seconds=30)

    scenario(tmp_path, body)


def test_more_memif_ends_than_dpdk_has_ports_are_refused_with_the_number(tmp_path):
    """Of one switch alone: the 32nd is told that there are 31; the others stay, one that goes makes room."""

    async def body(datapath, pod):
        def wire(number):
            return CrossConnect(f"w{number}", kernel(pod, number), listening(datapath, f"{number}.memif"))

        await asyncio.gather(*(datapath.apply(wire(number)) for number in range(1, MOST_MEMIF + 1)))
        with pytest.raises(MeshError, match=rf"{MOST_MEMIF} memif ends"):
            await datapath.apply(wire(MOST_MEMIF + 1))
        assert len(await datapath.switch.ports.owners()) == MOST_MEMIF
        await datapath.remove("w1")
        await datapath.apply(wire(MOST_MEMIF + 1))
        other = listening(datapath, f"{MOST_MEMIF + 1}.memif")
        async with answering(other.socket, MOST_MEMIF + 1):
            assert await pings(pod, MOST_MEMIF + 1)

    scenario(tmp_path, body, most=1)
