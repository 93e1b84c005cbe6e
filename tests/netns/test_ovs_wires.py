"""Wires through an Open vSwitch of our own, in namespaces of our own."""

import asyncio
import os
import shutil
import signal
import subprocess

import datapath_lab as lab
import pytest
from ovs_lab import driver

from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_own import PROGRAMS
from nsmesh.datapath.ovs_programs import running

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]


def test_a_wire_through_the_switch_carries_both_families_and_goes_without_a_trace(tmp_path):
    """Pings of IPv4 and IPv6 pass; applied again it is unchanged; after remove there is no port, no end."""

    async def main(make, a, b):
        datapath = make()
        wire = lab.simple(a, b)
        assert (await datapath.apply(wire)).outcome == "created"
        assert lab.pings(a, "10.0.1.2")
        assert lab.pings(b, "fd00:1::1")
        assert (await datapath.apply(wire)).outcome == "unchanged"
        assert len(await datapath.has()) == 4
        await datapath.remove(wire.id)
        await datapath.aclose()
        assert await datapath.switch.ports.owners() == {}
        assert lab.names(a) == lab.names(b) == set()

    with driver(tmp_path, pods=2) as (make, a, b):
        asyncio.run(main(make, a, b))


def test_the_switch_outlives_its_driver_and_is_adopted(tmp_path):
    """Without a driver frames pass; the next one finds the wire unchanged, or sweeps it without owner."""

    async def main(make, a, b):
        first = make()
        await first.apply(lab.simple(a, b))
        await first.aclose()
        assert lab.pings(a, "10.0.1.2")
        second = make()
        assert (await second.apply(lab.simple(a, b))).outcome == "unchanged"
        await second.aclose()
        third = make()
        assert {gone.id for gone in await third.sweep([])} == {"w1"}
        assert await third.switch.ports.owners() == {}
        assert lab.names(a) == set()
        await third.aclose()

    with driver(tmp_path, pods=2) as (make, a, b):
        asyncio.run(main(make, a, b))


@pytest.mark.parametrize("program", ["ovs-vswitchd", "ovsdb-server"])
def test_a_killed_daemon_is_started_again_by_the_next_apply(tmp_path, program):
    """After the death of either daemon an apply of the same wire has it carry frames again."""

    async def main(make, a, b):
        datapath = make()
        await datapath.apply(lab.simple(a, b))
        pid_file = datapath.switch.directory / f"{program}.pid"
        os.kill(running(pid_file, program), signal.SIGKILL)
        while running(pid_file, program):  # noqa: ASYNC110 - the end of a process of its own session
            await asyncio.sleep(0.01)
        await datapath.apply(lab.simple(a, b))
        assert lab.pings(a, "10.0.1.2")
        await datapath.aclose()

    with driver(tmp_path, pods=2) as (make, a, b):
        asyncio.run(main(make, a, b))


def pid_of(switch, program):
    return running(switch.directory / f"{program}.pid", program)


async def gone(switch, *programs):
    """Kill daemons, and return when they are dead."""
    pids = {program: pid_of(switch, program) for program in programs}
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    while any(pid_of(switch, program) == pid for program, pid in pids.items()):  # noqa: ASYNC110 - no children
        await asyncio.sleep(0.005)
    return set(pids.values())


@pytest.mark.parametrize(
    "victims", [PROGRAMS[:1], PROGRAMS[1:], PROGRAMS], ids=["switch", "database", "both"]
)
def test_a_kept_switch_comes_back_by_itself_with_all_wires(tmp_path, victims):
    """Each of three wires carries frames after the death of one daemon or both, and nobody applied them.

    Whoever keeps the switch knows none of the wires: another driver made them.
    """

    async def main(make, a, b):
        maker = make()
        for number in (1, 2, 3):
            await maker.apply(lab.simple(a, b, f"w{number}", number))
        await maker.aclose()
        keeper = make()
        async with keeping(keeper.switches):
            for _ in range(2):
                dead = await gone(keeper.switch, *victims)
                async with asyncio.timeout(10):
                    while not all([await asyncio.to_thread(lab.pings, a, f"10.0.{n}.2") for n in (1, 2, 3)]):  # noqa: ASYNC110 - what the kernel answers
                        await asyncio.sleep(0.01)
                assert {0, *dead}.isdisjoint([pid_of(keeper.switch, one) for one in victims])
        await keeper.aclose()

    with driver(tmp_path, pods=2) as (make, a, b):
        asyncio.run(main(make, a, b))


def test_a_stopped_switch_leaves_no_device(tmp_path):
    """After stop() the node's namespace has neither the switch's own device nor its bridge's."""

    async def main(make):
        datapath = make()
        await datapath.switch.ensure()
        node = datapath.switch.node
        assert {"ovs-netdev", "br-nsm"} <= lab.names(node)
        await datapath.switch.stop()
        assert lab.names(node) == set()
        await datapath.aclose()

    with driver(tmp_path, pods=2) as (make, _, _):
        asyncio.run(main(make))


def test_a_stream_through_the_switch_arrives_whole(tmp_path):
    """Four megabytes by TCP arrive as they were sent: checksums are right though no hardware writes them."""
    sent = os.urandom(1 << 22)
    receive = "import socket,sys;s=socket.create_server(('10.0.1.2',7));s.settimeout(8);print(flush=True)"
    receive += ";c=s.accept()[0];[sys.stdout.buffer.write(d) for d in iter(lambda: c.recv(65536), b'')]"
    send = "import socket,sys;c=socket.create_connection(('10.0.1.2',7),5);c.sendall(sys.stdin.buffer.read())"

    async def main(make, a, b):
        datapath = make()
        await datapath.apply(lab.simple(a, b))
        inside = [["nsenter", f"--net={path}", "python3", "-c"] for path in (a, b)]
        with subprocess.Popen([*inside[1], receive], stdout=subprocess.PIPE) as server:
            assert server.stdout.readline() == b"\n"
            sending = asyncio.to_thread(
                subprocess.run, [*inside[0], send], input=sent, check=True, timeout=20
            )
            _, arrived = await asyncio.gather(sending, asyncio.to_thread(server.stdout.read))
            assert arrived == sent
        await datapath.aclose()

    with driver(tmp_path, pods=2) as (make, a, b):
        asyncio.run(main(make, a, b))


def test_wires_that_are_asked_for_together_all_carry_frames(tmp_path):
    """Twenty at once, one of whose pods is gone: that one is refused, the others work, and go at once."""

    async def main(make, a, b):
        datapath = make()
        wires = [lab.simple(a, b, f"w{number}", number) for number in range(1, 21)]
        wires[7] = lab.simple("/run/netns/not-there", b, "w8", 8)
        results = await asyncio.gather(*map(datapath.apply, wires), return_exceptions=True)
        assert [number for number, one in enumerate(results, 1) if isinstance(one, Exception)] == [8]
        for number in set(range(1, 21)) - {8}:
            assert lab.pings(a, f"10.0.{number}.2"), number
        assert len(await datapath.switch.ports.owners()) == 19
        await asyncio.gather(*(datapath.remove(wire.id) for wire in wires))
        assert await datapath.switch.ports.owners() == {}
        await datapath.aclose()
        assert lab.names(a) == lab.names(b) == set()

    with driver(tmp_path, pods=2) as (make, a, b):
        asyncio.run(main(make, a, b))
