"""Wires through an Open vSwitch of our own, in namespaces of our own."""

import asyncio
import os
import shutil
import signal
from contextlib import contextmanager

import datapath_lab as lab
import pytest

from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_switch import running

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]


@contextmanager
def driver(tmp_path):
    """Yield what makes drivers of one node with a switch of its own, and two pods."""
    with lab.spaces(3) as (node, a, b):

        def make():
            return OvsDatapath(tmp_path / "ovs", node=node, namespaces=lambda: [a, b])

        try:
            yield make, a, b
        finally:
            asyncio.run(make().switch.stop())


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
        assert await datapath.switch.ports() == {}
        assert lab.names(a) == lab.names(b) == set()

    with driver(tmp_path) as (make, a, b):
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
        assert await third.switch.ports() == {}
        assert lab.names(a) == set()
        await third.aclose()

    with driver(tmp_path) as (make, a, b):
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

    with driver(tmp_path) as (make, a, b):
        asyncio.run(main(make, a, b))
