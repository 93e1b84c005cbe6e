"""For tests of switches: drivers of one node, ends of wires, and peers that answer there."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import datapath_lab as lab
import pytest

from nsmesh.core.errors import MeshError
from nsmesh.datapath import netns
from nsmesh.datapath.base import KernelPort, Route
from nsmesh.datapath.memif.answers import Answers
from nsmesh.datapath.memif.peer import connect
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import running
from nsmesh.model.wire import MemifPort, VhostUserPort

MAC = "02:00:00:00:00:07"
MEMORY = 256

needs_testpmd = pytest.mark.skipif(
    shutil.which("dpdk-testpmd") is None, reason="dpdk-testpmd is not installed"
)


@contextmanager
def driver(tmp_path, *, pods=1, **given):
    """Yield what makes drivers of one node with a switch of its own, and pods; it ends with its devices."""
    with lab.spaces(1 + pods) as (node, *inside):

        def make(**more):
            wanted = {"namespaces": lambda: inside, **given, **more}
            of_driver = {
                name: wanted.pop(name) for name in ("namespaces", "owner", "most", "apart") if name in wanted
            }
            return OvsDatapath(OwnSwitch(tmp_path / "ovs", node, **wanted), **of_driver)

        try:
            yield make, *inside
        finally:
            asyncio.run(make().switches.stop())


def scenario(tmp_path, body, *, pods=1, **given):
    """Run ``body`` with what makes drivers of a node, and pods; afterwards nothing is left of any switch."""
    with driver(tmp_path, pods=pods, **given) as (make, *inside):
        switches = make().switches
        try:
            asyncio.run(body(make, *inside))
        finally:
            asyncio.run(make().switches.stop())
        node = switches.first.node
        # of a wire that was not removed the ends stay
        assert {name for name in lab.names(node) if not name.startswith("nsmo")} == set()
        assert not Path(switches.first.spares.place).exists()
        assert not list(Path(netns.RUN_NETNS).glob(f"{Path(node).name}-*"))


def sharing_memory(tmp_path, body, **given):
    """Run ``body`` as :func:`scenario` does, with DPDK; at what stays of wires is not looked."""

    async def main(*made):
        async with asyncio.timeout(140):
            await body(*made)

    with driver(tmp_path, memory=MEMORY, **given) as made:
        asyncio.run(main(*made))


@asynccontextmanager
async def repairing(datapath):
    """Keep the switch, and make wires again that are told of; yield their ids."""
    told, tasks = [], []

    def tell(wire_id):
        told.append(wire_id)
        tasks.append(asyncio.ensure_future(datapath.restore(wire_id)))

    datapath.watch(tell)
    async with keeping(datapath.switches):
        await asyncio.sleep(0.3)  # it listens
        yield told
        await asyncio.gather(*tasks)


async def pairs(switch):
    """Return how many pairs of ports in advance are free, and how many are in use."""
    if not switch.flows.exists():
        return 0, 0
    free, used = await switch.ports.ready()
    return len(free), used


def kernel(pod, number=1):
    net = f"10.0.{number}"
    return KernelPort(pod, f"nsm-{number}", addresses=(f"{net}.1/32",), routes=(Route(f"{net}.2/32"),))


def listening(datapath, name="x.memif"):
    """Return an end at which the switch listens."""
    return MemifPort(str(datapath.switch.directory / "sockets" / name))


def vhost(datapath, name="x", queues=1):
    """Return an end at which the switch listens for a machine."""
    path = datapath.switch.directory / "sockets" / f"{name}.vhost"
    return VhostUserPort(str(path), listens=False, queues=queues)


@contextmanager
def held(path):
    """Yield the path by which this process holds a socket's file, as for one that came as a descriptor."""
    descriptor = os.open(path, os.O_PATH)
    try:
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


async def pings(pod, number=1, seconds=10.0):
    """Return whether a ping passes in time."""
    end = asyncio.get_running_loop().time() + seconds
    while not (passed := await asyncio.to_thread(lab.pings, pod, f"10.0.{number}.2")):
        if asyncio.get_running_loop().time() > end:
            break
    return passed


@asynccontextmanager
async def answering(path, number=1):
    """Have a memif client of one ring answer pings while the block runs."""
    peer = connect(str(path), Answers(MAC, [f"10.0.{number}.2"]))
    try:
        await asyncio.wait_for(peer.connected.wait(), 10)
        yield peer
    finally:
        peer.close()


@asynccontextmanager
async def reflecting(path):
    """Have a memif client send each frame back, and connect again whenever its wire ends."""

    async def again():
        while True:
            with suppress(MeshError):
                peer = connect(str(path), lambda frame: frame)
                try:
                    await peer.closed.wait()
                finally:
                    peer.close()
            await asyncio.sleep(0.02)

    task = asyncio.ensure_future(again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition, seconds=40.0, why=lambda: ""):
    """Wait for a condition; else fail with what ``why`` says."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, why()
        await asyncio.sleep(0.01)


async def killed(datapath, program="ovs-vswitchd"):
    """Kill a daemon of the first switch, and wait until another one runs."""
    pid_file = datapath.switch.directory / f"{program}.pid"
    pid = running(pid_file, program)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: running(pid_file, program) not in {0, pid})


class Echo:
    """A testpmd that answers ARP and pings on one device, or does what ``mode`` says."""

    def __init__(self, folder, *device, mode="icmpecho", queues=1):
        self.log = Path(folder, "testpmd.log")
        command = ["dpdk-testpmd", "--no-pci", "--no-huge", "--legacy-mem", "-m", "96"]
        command += [
            "--lcores",
            "0@0,1@0",
            f"--file-prefix=nsm{mode}{os.getpid()}",
            "--vdev",
            ",".join(device),
        ]
        command += ["--", "-i", "--total-num-mbufs=4096", "--nb-cores=1", "--port-topology=loop"]
        command += [
            f"--forward-mode={mode}",
            "--no-flush-rx",
            "--auto-start",
            f"--rxq={queues}",
            f"--txq={queues}",
        ]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )

    def received(self):
        """Ask for the counters, and return the packets received that it told last."""
        self.process.stdin.write(b"show port stats all\n")
        self.process.stdin.flush()
        found = re.findall(r"RX-packets: (\d+)", self.log.read_text())
        return int(found[-1]) if found else 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)


async def there(path):
    """Wait until a socket is there."""
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110 - a file of another program
            await asyncio.sleep(0.05)
