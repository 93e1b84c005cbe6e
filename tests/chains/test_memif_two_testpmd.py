"""Two packet processors of DPDK, wired by a Request: they meet at one socket, and packets are counted."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_memif_chain import Listening, MemifMesh

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("dpdk-testpmd") is None, reason="dpdk-testpmd is not installed"),
]


class Processor:
    """A testpmd on one memif; ``mode`` is what it does with packets."""

    def __init__(self, folder, role, path, mode):
        self.log = Path(folder, f"{role}.log")
        command = ["dpdk-testpmd", "--no-pci", "--no-huge", "--legacy-mem", "-m", "96"]
        command += ["--lcores", "0@0,1@0", f"--file-prefix=nsmtwo{os.getpid()}{role}"]
        command += ["--vdev", f"net_memif0,role={role},id=0,socket={path},socket-abstract=no"]
        command += ["--", "-i", "--total-num-mbufs=4096", "--nb-cores=1", "--port-topology=loop"]
        command += [f"--forward-mode={mode}", "--no-flush-rx", "--auto-start"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )

    def close(self):
        self.process.kill()
        self.process.wait(10)

    def counted(self):
        """Ask for the counters, and return the packets received last."""
        self.process.stdin.write(b"show port stats all\n")
        self.process.stdin.flush()
        found = re.findall(r"RX-packets: (\d+)", self.log.read_text())
        return int(found[-1]) if found else 0


class Starting(Listening):
    """Stands in the endpoint: the socket of a connection is a testpmd's, which swaps MACs and sends back."""

    async def request(self, call, request, next):
        answer = await next.request(call, request)
        path = answer.mechanism.parameters["socketfile"]
        if path not in self.listeners:
            self.listeners[path] = Processor(Path(path).parent, "server", path, "macswap")
            async with asyncio.timeout(40):
                while not Path(path).exists():  # noqa: ASYNC110 - a file of another program
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
        return answer


class TwoMesh(MemifMesh):
    """Its endpoint is a testpmd."""

    listening = Starting


def test_two_testpmd_meet_and_exchange_packets():
    """What one sends comes back by the other, over the socket that the answer names."""

    async def run():
        async with asyncio.timeout(100), TwoMesh() as mesh:
            request = mesh.wanted(1)
            answer = await mesh.nsc.request(mesh.call(60), request)
            path = answer.mechanism.parameters["inodeURL"].removeprefix("file://")
            client = Processor(mesh.private, "client", path, "flowgen")
            try:
                async with asyncio.timeout(30):
                    while client.counted() < 10_000:
                        assert client.process.poll() is None, client.log.read_text()
                        await asyncio.sleep(0.3)
            finally:
                client.close()
                await mesh.close(1)
            assert not mesh.datapath.calls["apply"]

    asyncio.run(run())
