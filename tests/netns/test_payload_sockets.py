"""Payloads on wires of user-space processes, byte for byte: memif to an interface, a machine to both."""

import asyncio
import os
import subprocess
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import payload_lab
import pytest
import vxlan_lab
from ovs_lab import driver, listening, needs_testpmd, there
from payload_lab import FRAMES, A, B
from test_payload_frames import PAYLOADS, total

from nsmesh.datapath import ovs_programs
from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.memif.peer import connect
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.model.wire import VhostUserPort

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(90),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]
UNREAD = ("runt", "IPv4 in name only", "IPv6 in name only", "half an IPv4 header", "MPLS without a label")
"""Frames that are not what their EtherType says: flows match what they say, the kernel what they are."""


def flows_pass(payload, name):
    """Say what flows carry: of fragments they see no ports, nor IPv6's protocol; its options they skip."""
    if payload == "L2TP" and "fragment" in name:
        return name.endswith("of L2TP over IP")
    return payload_lab.passes(payload, name) or (payload, name) == ("L2TP", "IPv6 with options")


class Far:
    """A memif client of one ring, which keeps what comes from a MAC."""

    def __init__(self, path, wanted):
        self.came = []
        self.peer = connect(str(path), partial(self._take, wanted))

    def _take(self, wanted, frame):
        if frame[6:12] in {wanted, payload_lab.AWAKE}:
            self.came.append(frame)

    async def is_up(self):
        """Return whether the other side has taken it: one that has just begun to listen may refuse."""
        waits = [asyncio.ensure_future(one.wait()) for one in (self.peer.connected, self.peer.closed)]
        await asyncio.wait(waits, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        await asyncio.sleep(0.1)
        return self.peer.connected.is_set() and not self.peer.reason

    async def heard(self, count):
        """Return what has come, once so many are there, or in vain; and a moment longer."""
        limit = time.monotonic() + 3
        while len(self.came) < count and time.monotonic() < limit:  # noqa: ASYNC110 - what others send
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        came, self.came = self.came, []
        return came


def wrong(came, names, shall, macs):
    """Return what was lost that should pass, and the reverse, by name."""
    known = {payload_lab.frame(name, *macs): name for name in names}
    wanted = Counter(payload_lab.frame(name, *macs) for name in shall)
    found = Counter(frame for frame in came if frame[6:12] != payload_lab.AWAKE)
    lost, passed = wanted - found, found - wanted
    return [f"lost: {known[one]}" for one in lost] + [f"passed: {known.get(one, one)}" for one in passed]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_wire_from_an_interface_to_memif_carries_its_payload_and_nothing_else(tmp_path, payload):
    """As a wire of the kernel alone: both ways, byte for byte; each frame that is refused is counted."""
    names = list(FRAMES)
    shall = [name for name in names if payload_lab.passes(payload, name)]

    async def body(made, pod):
        near = listening(made)
        end = KernelPort(pod, "one", vxlan_lab.NEAR_MAC, numbered=False)
        await made.apply(CrossConnect("w1", end, near, payload))
        far = Far(near.socket, A)
        await asyncio.wait_for(far.peer.connected.wait(), 20)
        with payload_lab.ears((pod, "one")) as (ear,):
            while not await far.heard(1):
                payload_lab.send(ear, payload_lab.frame(shall[0], payload_lab.AWAKE, B))
            for name in names:
                payload_lab.send(ear, payload_lab.frame(name, A, B))
            assert wrong(await far.heard(len(shall)), names, shall, (A, B)) == []
            for name in names:
                assert far.peer.send([payload_lab.frame(name, B, A)]) == 1
                await asyncio.sleep(0.002)
            came = await asyncio.to_thread(payload_lab.heard, ear, len(shall), B)
            assert wrong(came, names, shall, (B, A)) == []
        limit, refused = time.monotonic() + 3, 2 * (len(names) - len(shall))
        while total(made.refused()) < refused and time.monotonic() < limit:  # noqa: ASYNC110 - the kernel's count
            await asyncio.sleep(0.01)
        assert total(made.refused()) == refused
        far.peer.close()
        await made.aclose()

    with driver(tmp_path, memory=256) as (make, pod):
        asyncio.run(body(make(), pod))


@asynccontextmanager
async def machine(folder, vhost, wanted, queues=1):
    """Yield a memif client whose frames a testpmd with a virtio device sends, and gets, untouched."""
    folder.mkdir()
    inner = folder / "m.sock"
    command = ["dpdk-testpmd", "--no-pci", "--no-huge", "--legacy-mem", "-m", "96", "--lcores", "0@0,1@0"]
    command += [f"--file-prefix=nsm{folder.name}{os.getpid()}"]
    command += ["--vdev", f"net_virtio_user0,path={vhost},queues={queues}"]
    command += ["--vdev", f"net_memif0,role=server,id=0,socket={inner},socket-abstract=no"]
    command += ["--", "-i", "--total-num-mbufs=4096", "--nb-cores=1", "--forward-mode=io"]
    command += ["--no-flush-rx", "--auto-start"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            await there(inner)
            async with asyncio.timeout(30):
                while not await (far := Far(inner, wanted)).is_up():
                    far.peer.close()
            yield far
            far.peer.close()
        finally:
            process.kill()


@asynccontextmanager
async def client(path, wanted):
    """Yield a memif client."""
    far = Far(path, wanted)
    await asyncio.wait_for(far.peer.connected.wait(), 20)
    yield far
    far.peer.close()


@needs_testpmd
@pytest.mark.parametrize("other", ["memif", "vhost-user"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_wire_to_a_machine_carries_its_payload_and_nothing_else(tmp_path, payload, other):
    """From another one, or a memif client of one ring: by the switch's flows alone, byte for byte."""
    names = [name for name in FRAMES if name not in UNREAD]
    shall = [name for name in names if flows_pass(payload, name)]

    async def body(made):
        paths = [made.switch.directory / "sockets" / f"{name}.vhost" for name in "xy"]
        near_end, far_end = (VhostUserPort(str(path), listens=False) for path in paths)
        memif = listening(made)
        async with keeping(made.switches), AsyncExitStack() as stack:
            await made.apply(CrossConnect("w1", memif if other == "memif" else near_end, far_end, payload))
            begun = client(memif.socket, B) if other == "memif" else machine(tmp_path / "x", paths[0], B)
            near = await stack.enter_async_context(begun)
            far = await stack.enter_async_context(machine(tmp_path / "y", paths[1], A))
            for out, into, macs in ((near, far, (A, B)), (far, near, (B, A))):
                while not await into.heard(1):
                    out.peer.send([payload_lab.frame(shall[0], payload_lab.AWAKE, macs[1])])
                for name in names:
                    assert out.peer.send([payload_lab.frame(name, *macs)]) == 1
                    await asyncio.sleep(0.002)
                assert wrong(await into.heard(len(shall)), names, shall, macs) == []
        await made.remove("w1")
        await made.aclose()

    with driver(tmp_path, memory=256) as (make, _):
        asyncio.run(body(make()))
