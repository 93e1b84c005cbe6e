"""What DPDK does not give back when memif ports go: a switch that has used it up is followed by another."""

import asyncio
import resource
import time
from pathlib import Path

import pytest
from ovs_lab import MEMORY, answering, driver, held, kernel, listening, pings

from nsmesh.core.errors import Unavailable
from nsmesh.datapath import ovs_programs, ovs_wear
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.memif.peer import listen
from nsmesh.datapath.ovs_callers import Callers
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_memif import DEVICE, device
from nsmesh.datapath.ovs_programs import running
from nsmesh.datapath.ovs_rows import SwitchPort
from nsmesh.model.wire import MemifPort

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]
TIGHT = 140
"""MiB that hold the largest pool of buffers and a hundred memif ports or so."""
TOGETHER = 14


def descriptors(pid):
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def port(switch, name):
    """Return a memif port at which the switch listens."""
    made = device(f"role=server,id=0,socket={switch.directory}/{name},socket-abstract=no")
    return SwitchPort(name, "dpdk", ((DEVICE, made),), mark=name)


async def worn(switch):
    """Have memif ports come and go until DPDK does not take even one more; return how many there were."""
    made, together, failed = 0, TOGETHER, 0
    while failed < 3:
        numbers = range(made, made + together)
        pairs = [(f"f{at}", port(switch, f"x{at}a"), port(switch, f"x{at}b")) for at in numbers]
        results = await asyncio.gather(
            *(switch.ports.connect(*pair) for pair in pairs), return_exceptions=True
        )
        await asyncio.gather(*(switch.ports.disconnect(owner) for owner, _, _ in pairs))
        made += together
        assert made < 2000, "its memory does not end"
        if any(isinstance(result, Unavailable) for result in results):
            failed, together = failed + (together == 1), 1
    return made


def test_a_switch_that_has_used_its_memory_up_is_followed_by_another(tmp_path, monkeypatch):
    """The wire that did not fit is made, the one that was there carries frames again, and nothing is left.

    Before, a young switch is left alone: it would be no better anew.
    """

    async def main(make, pod):
        datapath = make(memory=TIGHT)
        switch = datapath.switch
        pid_file = switch.directory / "ovs-vswitchd.pid"
        near, more = listening(datapath), listening(datapath, "y.memif")
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            pid = running(pid_file, "ovs-vswitchd")
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] > 1024
            before = descriptors(pid)
            ports = await worn(switch)
            assert ports > 0
            assert descriptors(pid) - before >= ports, "the leak is gone: mend decision 57"
            second = CrossConnect("w2", kernel(pod, 2), more)
            with pytest.raises(Unavailable):
                await datapath.apply(second)
            assert running(pid_file, "ovs-vswitchd") == pid
            monkeypatch.setattr(ovs_wear, "REST", 0.0)
            began = time.monotonic()
            assert (await datapath.apply(second)).outcome == "created"
            assert running(pid_file, "ovs-vswitchd") not in {0, pid}
            assert time.monotonic() - began < 30
            for number, end in ((1, near), (2, more)):
                async with answering(end.socket, number):
                    assert await pings(pod, number)
            for wire in ("w1", "w2"):
                await datapath.remove(wire)
            assert await switch.ports.owners() == {}
        await datapath.aclose()

    with driver(tmp_path, memory=MEMORY) as (make, pod):
        asyncio.run(main(make, pod))


def test_an_endpoint_that_is_away_costs_the_switch_no_memory(tmp_path):
    """It is not called as long as nobody listens at its socket, however often one looks."""

    async def main(make, pod):
        datapath = make()
        control = datapath.switch.directory / "ovs-vswitchd.ctl"
        path, now = tmp_path / "nse.sock", [0.0]
        listener = listen(str(path), lambda _: None)
        with held(path) as held_path:
            await datapath.apply(CrossConnect("w1", kernel(pod), MemifPort(held_path, listens=True)))
            listener.close()
            callers = Callers(datapath.switch.ports, datapath.switch.database, lambda: now[0])
            async with asyncio.timeout(30):
                while (await datapath.switch.ports.calling())[0]["link_state"] == "up":  # noqa: ASYNC110 - the switch's
                    await asyncio.sleep(0.1)
            before = await ovs_wear.free_memory(control)
            for _ in range(10):
                now[0] += 10
                await callers.look()
                await asyncio.sleep(0.05)
            assert before - await ovs_wear.free_memory(control) < 10_000
        await datapath.aclose()

    with driver(tmp_path, memory=MEMORY) as (make, pod):
        asyncio.run(main(make, pod))
