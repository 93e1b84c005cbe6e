"""The stream of numbered packets: nothing is lost on a wire in peace, and a loss that is made is counted."""

import asyncio
import os
import subprocess
import uuid

import pytest

from nsmesh.chaos.streams import stream
from nsmesh.datapath import netns

pytestmark = pytest.mark.root
RATE = 10_000


@pytest.fixture
def wire():
    name = f"stream{os.getpid()}{uuid.uuid4().hex[:4]}"
    with netns.temporary(f"{name}-a", f"{name}-b") as paths:
        ends = [f"{name}-a", f"{name}-b"]
        ip("-n", ends[0], "link", "add", "w", "type", "veth", "peer", "name", "w", "netns", ends[1])
        for number, end in enumerate(ends):
            ip("-n", end, "address", "add", f"10.9.8.{number + 1}/24", "dev", "w")
            ip("-n", end, "link", "set", "w", "up")
        yield ends, paths


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def nft(space, text):
    subprocess.run(["ip", "netns", "exec", space, "nft", "-f", "-"], input=text, text=True, check=True)


def flow(paths, folder, fault=lambda: None):
    async def run():
        async with stream(folder, paths[0], "10.9.8.2", [paths[1]], RATE) as one:
            await asyncio.sleep(0.8)
            fault()
            await asyncio.sleep(0.7)
            return await one.end()

    return asyncio.run(run())


def test_a_wire_in_peace_loses_nothing(wire, tmp_path):
    """Not a packet is lost or doubled where nobody disturbs."""
    found = flow(wire[1], tmp_path)
    assert found.sent > 1000
    assert (found.lost, found.duplicates) == (0, 0)


def test_a_loss_that_is_made_is_counted(wire, tmp_path):
    """A rule that drops exactly 37 packets is 37 lost packets."""
    space = wire[0][1]
    rule = (
        "table ip t {\nchain c {\ntype filter hook input priority 0\n"
        "udp dport 9999 numgen inc mod 1000000 < 37 drop\n}\n}\n"
    )
    found = flow(wire[1], tmp_path, lambda: nft(space, rule))
    assert found.lost == 37
    assert found.gap > 37 * 1e9 / RATE / 2
