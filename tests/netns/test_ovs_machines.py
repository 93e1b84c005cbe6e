"""Real virtual machines on wires of a switch: one monitor listens, the other connects; one meets memif."""

import asyncio
import os
import shutil
import signal

import pytest
from ovs_lab import MAC, MEMORY, driver, held, kernel, listening, pings, there
from tiny_image import MissingError, image
from tiny_machine import QEMU, Card, Machine, MachineError

from nsmesh.datapath import ovs_programs
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.memif.answers import Answers, checksum
from nsmesh.datapath.memif.peer import connect
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_programs import running
from nsmesh.model.wire import VhostUserPort

NEEDED = [name for name in (QEMU, "busybox") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}"),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]
PATIENCE = 90
"""Seconds: a machine that is interpreted has its share of a busy host, no more."""


def made_image():
    try:
        return image()
    except MissingError as error:
        pytest.skip(f"no image of a machine: {error}")


async def reaches(machine, address):
    """Wait until a machine's pings come back."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await asyncio.to_thread(machine.run, f"ping -c 1 -W 1 {address}")
        except MachineError:
            assert asyncio.get_running_loop().time() < end, f"{address} is not reached"


def test_machines_meet_whoever_listens(tmp_path):
    """A monitor that listens (mode: server) has a wire to a pod, then to a machine whose monitor connects.

    The pod's goes when the other is made; both machines are up all the time, also when the switch is
    killed: the one that connects is back by itself, the one that listens is called by the switch.
    """
    made = made_image()

    async def main(make, pod):
        datapath = make()
        path = tmp_path / "vm.sock"
        own = datapath.switch.directory / "sockets" / "x.vhost"
        one, other = (Machine(tmp_path / name) for name in ("one", "other"))
        pid_file = datapath.switch.directory / "ovs-vswitchd.pid"
        try:
            async with keeping(datapath.switches):
                booting = asyncio.create_task(
                    asyncio.to_thread(one.start, Card(str(path), listens=True), made)
                )
                await there(path)
                with held(path) as socket:
                    listening = VhostUserPort(socket, listens=True)
                    await datapath.apply(CrossConnect("w1", kernel(pod), listening))
                    await booting
                    setting = "ip link set eth0 up && ip address add 10.0.1.2/24 dev eth0"
                    await asyncio.to_thread(one.run, setting)
                    assert await pings(pod, seconds=PATIENCE)
                    await datapath.remove("w1")
                    connecting = VhostUserPort(str(own), listens=False)
                    await datapath.apply(CrossConnect("w2", listening, connecting, "IP"))
                    card = Card(str(own), mac="02:00:00:00:10:02")
                    await asyncio.to_thread(other.start, card, made)
                    await asyncio.to_thread(other.run, setting.replace(".2/", ".3/"))
                    await reaches(other, "10.0.1.2")
                    await reaches(one, "10.0.1.3")
                    dead = running(pid_file, "ovs-vswitchd")
                    os.kill(dead, signal.SIGKILL)
                    async with asyncio.timeout(40):
                        while running(pid_file, "ovs-vswitchd") in {0, dead}:  # noqa: ASYNC110 - no child of ours
                            await asyncio.sleep(0.05)
                    await reaches(other, "10.0.1.2")
        finally:
            one.kill()
            other.kill()
            await datapath.aclose()

    with driver(tmp_path, memory=MEMORY) as (make, pod):
        asyncio.run(main(make, pod))


TCP, UDP = 6, 17


class Watching(Answers):
    """Answers pings, and keeps what else comes by IPv4: protocol, length, whether the checksums are right."""

    def __init__(self):
        super().__init__(MAC, ["10.0.1.2"])
        self.seen = []

    def __call__(self, frame):
        if frame[12:14] == b"\x08\x00" and frame[23] in {TCP, UDP}:
            packet = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
            data = packet[20:]
            pseudo = packet[12:20] + bytes([0, packet[9]]) + len(data).to_bytes(2, "big")
            rests = checksum(packet[:20]), checksum(pseudo + data)
            self.seen.append((packet[9], len(packet), not any(rests)))
        return super().__call__(frame)


def test_a_machine_meets_a_memif_peer_of_one_ring(tmp_path):
    """Pings pass, and what the machine sends by TCP and UDP is whole: right checksums, no frame too long."""
    made = made_image()

    async def main(make, pod):
        del pod
        datapath = make()
        own = datapath.switch.directory / "sockets" / "x.vhost"
        machine, watching = Machine(tmp_path / "one"), Watching()
        near = listening(datapath)
        try:
            async with keeping(datapath.switches):
                await datapath.apply(CrossConnect("w1", near, VhostUserPort(str(own), listens=False), "IP"))
                peer = connect(near.socket, watching)
                await asyncio.wait_for(peer.connected.wait(), 20)
                await asyncio.to_thread(machine.start, Card(str(own)), made)
                setting = "ip link set eth0 up && ip address add 10.0.1.1/24 dev eth0"
                await asyncio.to_thread(machine.run, setting)
                await reaches(machine, "10.0.1.2")
                for line in (
                    "ping -c 3 -s 1472 10.0.1.2",
                    "traceroute -n -m 1 -q 2 -w 1 10.0.1.2 1472; true",
                    "echo | nc -w 1 10.0.1.2 80; true",
                ):
                    await asyncio.to_thread(machine.run, line, PATIENCE)
                peer.close()
        finally:
            machine.kill()
            await datapath.aclose()
        assert {kind for kind, _, _ in watching.seen} == {TCP, UDP}
        assert max(length for _, length, _ in watching.seen) in range(1400, 1501)
        assert all(right for _, _, right in watching.seen), watching.seen

    with driver(tmp_path, memory=MEMORY) as (make, pod):
        asyncio.run(main(make, pod))
