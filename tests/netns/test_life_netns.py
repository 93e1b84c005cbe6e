"""The life of connections with the real kernel: what is left behind, whatever happens, goes away."""

from __future__ import annotations

import asyncio
import os
import uuid

import datapath_lab as lab
import pytest
import test_life_of_connections as life
from hypothesis import settings
from life_mesh import CLIENTS, MIDDLE, LifeMesh

from nsmesh.datapath import netns
from nsmesh.datapath.linux import LinuxDatapath

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

INSIDE = ("nse1", "nse3", "nse4", MIDDLE, *CLIENTS)
ONE_NODE = ("registry", "nsmgr1", "fwd1", *INSIDE)


class MortalLinux(LinuxDatapath):
    """The driver, with faults before the kernel is asked and before its answer is told."""

    def __init__(self, faults, process, **options):
        super().__init__(**options)
        self._plan, self._process = faults, process

    async def apply(self, wire):
        await self._plan.step(self._process, "datapath before apply")
        applied = await super().apply(wire)
        await self._plan.step(self._process, "datapath after apply")
        return applied

    async def remove(self, wire_id):
        await self._plan.step(self._process, "datapath before remove")
        await super().remove(wire_id)
        await self._plan.step(self._process, "datapath after remove")

    async def aclose(self):
        """Stop deleting, too, where a killed process would have."""
        if self._process.alive:
            await super().aclose()


class KernelMesh(LifeMesh):
    """One node on this machine's kernel; time is virtual all the same."""

    def __init__(self, prefix):
        super().__init__()
        self.prefix = prefix
        self.nodes, self.kernels = (1,), {}
        self.drivers = []
        self.makers = {name: make for name, make in self.makers.items() if name in ONE_NODE}

    def space(self, name):
        return f"{netns.RUN_NETNS}/{self.prefix}{name}"

    @property
    def spaces(self):
        return [self.space(name) for name in INSIDE]

    def new_driver(self, make=LinuxDatapath, *more):
        made = make(*more, owner=f"{self.prefix}fwd1", namespaces=lambda: self.spaces)
        self.drivers.append(made)
        return made

    def driver(self, number, process):
        return self.new_driver(MortalLinux, self.faults, process)

    async def settled(self):
        """Wait until what was removed is deleted, in real time."""
        for driver in self.drivers:
            await driver.drain()

    async def stop(self):
        await super().stop()
        for driver in self.drivers:
            await LinuxDatapath.aclose(driver)


class KernelLife(life.LifeOfConnections):
    """The same rules; at rest the kernel is asked what is there."""

    prefix = ""

    def make_mesh(self):
        return KernelMesh(self.prefix)

    async def _rest(self):
        await super()._rest()
        mesh = self.mesh
        await mesh.settled()
        here = {
            segment.id
            for _, connection in self._all()
            for segment in connection.path.path_segments
            if segment.name == "fwd1"
        }
        found = await mesh.new_driver().has()
        assert {existing.id for existing in found} == here
        assert len(found) == 2 * len(here)
        for name, connection in self._all():
            interface = connection.mechanism.parameters["name"]
            wanted = set(connection.context.ip_context.src_ip_addrs)
            assert set(lab.addresses(mesh.space(name), interface)) == wanted

    def _all(self):
        return [(name, one) for name in CLIENTS for one in self.mesh.lives(name).values()]

    async def _within(self, work):
        """Set the end no limit in virtual time: that leaps ahead while the kernel deletes all in a thread."""
        return await (work if work.__name__ == "_end" else super()._within(work))

    async def _end(self):
        mesh = self.mesh
        await super()._end()
        for driver in mesh.drivers:
            await LinuxDatapath.aclose(driver)
        await asyncio.sleep(0)
        for path in mesh.spaces:
            assert lab.names(path) == set(), path


def test_nothing_is_left_in_the_kernel():
    """Whatever happens in whatever order: at rest each wire is as agreed, at the end no link is left."""
    prefix = f"life{os.getpid()}{uuid.uuid4().hex[:4]}-"
    with netns.temporary(*(f"{prefix}{name}" for name in INSIDE)):
        machine = type("KernelLifeHere", (KernelLife,), {"prefix": prefix})
        case = machine.TestCase
        case.settings = settings(life.CALM, max_examples=12, stateful_step_count=15)
        case().runTest()
