"""Wires of user-space processes: packets, the making of a wire by mechanism, and what an idle switch takes.

Run as root: python bench/run.py memif. Needs Open vSwitch with DPDK and ``dpdk-testpmd``; makes its own
namespaces, switches and processes; takes about two minutes. Packets: see ``memif_packets.py``.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import memif_machines
import memif_packets
from common import spaces
from memif_lab import OURS, ask, mesh, request_of
from processes import cpu_of
from report import Report, row

from nsmesh.chains.forwarder_ovs import mechanisms_of_switch
from nsmesh.chains.settings import ForwarderSettings
from nsmesh.core.element import Chain
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_dpdk import MEMORY, SOCKETS
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import lacks_dpdk, running
from nsmesh.mechanisms.kernel import OWN_NAMESPACE, Kernel
from nsmesh.mechanisms.memif import Memif
from nsmesh.model.messages import NetworkServiceRequest

NAME = "memif"


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure packets, set-up and rest."""
    why = lacks_dpdk() or ("" if shutil.which("dpdk-testpmd") else "dpdk-testpmd is not found in PATH")
    if why:
        return Report(notes=[f"memif: missing: {why}"])
    rounds, seconds, wires = (1, 0.5, 3) if short else (8, 1.0, 40)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="nsmb", dir="/tmp") as folder:
        asyncio.run(memif_packets.direct(Path(folder), report, rounds, seconds))
        asyncio.run(memif_packets.switched(Path(folder), report, rounds, seconds))
        asyncio.run(memif_machines.between(Path(folder), report, rounds, seconds))
        asyncio.run(memif_machines.to_an_interface(Path(folder), report, rounds, seconds))
        asyncio.run(_set_up(Path(folder), report, wires))
    return report


async def _set_up(folder: Path, report: Report, count: int) -> None:
    """Make wires of each mechanism in turn, from the Request to its answer, each closed before the next."""
    with spaces(4) as (node, near, far, other):
        async with AsyncExitStack() as stack:
            kernel, ovs, direct = await _meshes(folder, stack, (node, far))
            interface = {"inodeURL": f"file://{near}", "name": "b0"}
            ways: dict[str, tuple[Chain, str, dict[str, str]]] = {
                "KERNEL": (kernel, "KERNEL", interface),
                "KERNEL, by the switch": (ovs, "KERNEL", {**interface, "inodeURL": f"file://{other}"}),
                "MEMIF to MEMIF, no switch": (direct, "MEMIF", {"inodeURL": OWN_NAMESPACE}),
                "MEMIF to KERNEL": (ovs, "MEMIF", {"inodeURL": OWN_NAMESPACE}),
                "VHOST_USER to KERNEL": (ovs, "VHOST_USER", {"mode": "client"}),
            }
            pid = running(folder / "t" / "ovs-vswitchd.pid", "ovs-vswitchd")
            wall: dict[str, list[float]] = {name: [] for name in ways}
            cpu: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(-1, count):  # the first of each pays for what all share
                for name, (chain, kind, parameters) in ways.items():
                    took, burnt = await _one(chain, request_of(number + 1, kind, parameters), pid)
                    if number >= 0:
                        wall[name].append(took)
                        cpu[name].append(burnt)
    report.rows += [
        row("wire by a Request", name, wall[name], cpu[name], cpu["KERNEL"], to="KERNEL") for name in ways
    ]


async def _one(chain: Chain, request: NetworkServiceRequest, pid: int) -> tuple[float, float]:
    """Make a wire and take it away; return the time of its Request, and CPU time of ours and of ``pid``."""
    burnt, began = cpu_of(pid) + time.process_time(), time.perf_counter()
    answer = await ask(chain, request)
    took, burnt = time.perf_counter() - began, cpu_of(pid) + time.process_time() - burnt
    await chain.close(OURS.within(15.0), answer)
    await asyncio.sleep(0.02)
    return took, burnt


async def _meshes(folder: Path, stack: AsyncExitStack, places: tuple[str, str]) -> tuple[Chain, Chain, Chain]:
    """Return clients of three meshes: the kernel's forwarder, one with a switch, and an endpoint of memif."""
    node, far = places
    enter = stack.enter_async_context
    made = [LinuxDatapath(owner=f"forwarder:bench{number}") for number in range(2)]
    switched = OvsDatapath(OwnSwitch(folder / "t", node, memory=MEMORY))
    for datapath in (*made, switched):
        stack.push_async_callback(datapath.aclose)
    stack.push_async_callback(switched.switch.stop)
    await switched.switch.ensure()
    await switched.switch.ensure_dpdk()
    kernel = Kernel(inode_url=f"file://{far}")
    by_switch = mechanisms_of_switch(ForwarderSettings(), folder / "t" / SOCKETS)
    memif_end = Memif(folder=str(folder), inode_url=OWN_NAMESPACE)
    return (
        await enter(mesh(folder / "k", made[0], [Kernel()], kernel)),
        await enter(mesh(folder / "o", switched, by_switch, kernel)),
        await enter(mesh(folder / "d", made[1], [Kernel(), Memif()], memif_end)),
    )
