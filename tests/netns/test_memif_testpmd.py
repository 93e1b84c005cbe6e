"""The memif peer against DPDK's: one ring each way, in either role."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from nsmesh.datapath.memif.peer import connect, listen

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("dpdk-testpmd") is None, reason="dpdk-testpmd is not installed"),
]
COUNT = 2000


def start_testpmd(path, role, log):
    """Start a testpmd that sends each frame back on a memif at ``path``."""
    command = ["dpdk-testpmd", "--no-pci", "--no-huge", "--legacy-mem", "-m", "96", "--lcores", "0@0,1@0"]
    command += [f"--file-prefix=nsm{os.getpid()}{path.name}"]
    command += ["--vdev", f"net_memif0,role={role},id=0,socket={path},socket-abstract=no"]
    command += ["--", "-i", "--total-num-mbufs=4096", "--nb-cores=1", "--port-topology=loop"]
    command += ["--forward-mode=macswap", "--no-flush-rx", "--auto-start"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log.open("wb"), stderr=subprocess.STDOUT)


def stop(process):
    process.kill()
    process.wait(10)


async def exchange(peer, got):
    """Send numbered frames until all have come back, and return them."""
    end = time.monotonic() + 30
    sent = 0
    while len(got) < COUNT and time.monotonic() < end:
        if sent < COUNT and sent - len(got) < 100:
            sent += peer.send([bytes(12) + b"\x88\xb5" + sent.to_bytes(4, "big") + bytes(200)])
        await asyncio.sleep(0)
    return [int.from_bytes(frame[14:18], "big") for frame in got]


def test_testpmd_connects_and_sends_back(tmp_path):
    """As the server: every frame that goes to it comes back, once and in order."""

    async def scenario():
        got = []
        listener = listen(str(tmp_path / "m.sock"), got.append)
        process = start_testpmd(tmp_path / "m.sock", "client", tmp_path / "log")
        try:
            async with asyncio.timeout(60):
                while not any(peer.connected.is_set() for peer in listener.peers):
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    await asyncio.sleep(0.05)
            (peer,) = listener.peers
            assert await exchange(peer, got) == list(range(COUNT))
        finally:
            stop(process)
        async with asyncio.timeout(20):
            while listener.peers:  # noqa: ASYNC110 - the listener has no event for it
                await asyncio.sleep(0.05)
        listener.close()

    asyncio.run(scenario())


def test_testpmd_listens_and_sends_back(tmp_path):
    """As the client: the same, with memory of ours."""

    async def scenario():
        got = []
        path: Path = tmp_path / "m.sock"
        process = start_testpmd(path, "server", tmp_path / "log")
        try:
            async with asyncio.timeout(60):
                while not path.exists():
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            peer = connect(str(path), got.append)
            await asyncio.wait_for(peer.connected.wait(), 20)
            assert await exchange(peer, got) == list(range(COUNT))
            peer.close()
        finally:
            stop(process)

    asyncio.run(scenario())
