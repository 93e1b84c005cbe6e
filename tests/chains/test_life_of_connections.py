"""Any order of request, refresh, close, expiry, crash and repair leaves nothing behind, in no role."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from life_checks import always, at_rest, empty
from life_mesh import CLIENTS, ENDPOINTS, MIDDLE, NODES, ROLES, LifeMesh, begin_of, reselecting
from life_network import LIFETIME

from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.virtual import VirtualLoop
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import NetworkServiceRequest

pytestmark = pytest.mark.timeout(240)

WHO = st.sampled_from(CLIENTS)
SLOTS = st.integers(0, 3)
SERVICES = st.sampled_from(["intranet", "intranet", "lan", "secure"])
INTERFACES = st.sampled_from(["nsm-1", "nsm-2", "nsm-3", "nsm-4"])
PROCESSES = st.sampled_from([*ROLES, *CLIENTS])
TIMES = st.sampled_from([0.0005, 0.002, 0.004, 0.01, 0.2, 1.0, 5.0, 20.0, LIFETIME, 2 * LIFETIME])
LONGEST = 60.0
"""Virtual seconds within which whoever asks has an answer."""
SETTLED = 3 * LIFETIME
"""Virtual seconds after the last disturbance after which all is at rest: see docs/invariants.md."""
SOON = 10.0
"""The same where processes keep journals: no token has ended by then."""


class LifeOfConnections(RuleBasedStateMachine):
    """The real chains of all roles; faults between any two elements, at any datapath call, in any process."""

    settled = SETTLED

    def __init__(self):
        super().__init__()
        self.broken = []
        self.calm = True  # nothing has been disturbed since all was at rest
        structlog.configure(
            processors=[self._hear], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
        )
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.mesh = None

    def _hear(self, _, __, event):
        """Note what nobody should see: tasks and timers that failed with something unforeseen."""
        self.broken.append({**event, "error": repr(sys.exception())})
        raise structlog.DropEvent

    def run(self, work):
        try:
            return self.runner.run(self._within(work))
        except AssertionError as error:
            error.add_note("\n".join(self.mesh.history))
            raise

    async def _within(self, work):
        self.mesh.note(getattr(work, "__qualname__", "").rpartition(".")[2])
        async with asyncio.timeout(LONGEST * 30):
            return await work

    def make_mesh(self):
        return LifeMesh()

    @initialize()
    def begin(self):
        async def start():
            await self.mesh.start()
            await asyncio.sleep(1)

        async def make():
            return self.make_mesh()

        self.mesh = self.runner.run(make())
        self.run(start())

    async def _done(self, task, *, wait):
        if wait:
            await asyncio.wait((task,), timeout=LONGEST)
            assert task.done(), f"a call has no end:\n{task.get_stack()}"
        else:
            await asyncio.sleep(0.003)
        if task.done() and not task.cancelled() and task.exception() is not None:
            error = task.exception()
            self.mesh.note(f"-> {type(error).__name__}: {error}"[:300])
            assert isinstance(error, MeshError), repr(error)
        elif task.done() and not task.cancelled():
            self.mesh.note("-> ok")

    # --- what clients do --------------------------------------------------------------------------------

    @rule(
        who=WHO,
        slot=SLOTS,
        service=SERVICES,
        interface=INTERFACES,
        wait=st.booleans(),
        restored=st.booleans(),
    )
    def request(self, who, slot, service, interface, wait, restored):
        async def work():
            mesh = self.mesh
            if not mesh.alive(who):
                return
            mesh.note(f"request {who} {slot} {service} {interface} wait={wait} restored={restored}")
            request = mesh.asked(who, slot, service, interface)
            key = request.connection.id
            held = None
            if restored and key not in mesh.lives(who):
                held = await mesh.held(who, key)
            if held is not None:
                request.connection.CopyFrom(held)
            quiet = wait and self.calm and mesh.kernels and mesh.faults.left is None and not mesh.requests
            place = (f"/run/netns/{who}", interface)
            before = mesh.kernels[1].interfaces.get(place) if quiet else None
            others = {one.path.path_segments[2].id for one in mesh.lives(who).values() if one.id != key}
            if not mesh.alive(who):
                return
            task = mesh.request(who, request)
            await self._done(task, wait=wait)
            if quiet and before is not None and before.wire_id in others:
                after = mesh.kernels[1].interfaces.get(place)
                still = {one.path.path_segments[2].id for one in mesh.lives(who).values()}
                assert after == before or before.wire_id not in still, f"{before} became {after}"

        self.run(work())

    def _living(self, who, number):
        living = sorted(self.mesh.lives(who).items())
        return living[number % len(living)][1] if living else None

    @rule(
        who=WHO,
        number=SLOTS,
        change=st.sampled_from(["", "labels", "mtu", "payload", "reselect"]),
        wait=st.booleans(),
    )
    def again(self, who, number, change, wait):
        async def work():
            held = self._living(who, number)
            if held is None:
                return
            self.mesh.note(f"again {held.id} {change} wait={wait}")
            connection = reselecting(held) if change == "reselect" else copy_of(held)
            if change == "labels":
                connection.labels["color"] = "red" if connection.labels.get("color") != "red" else "blue"
            elif change == "mtu":
                connection.context.MTU = 1300
            elif change == "payload":
                connection.payload = "ETHERNET"
            request = NetworkServiceRequest(connection=connection, mechanism_preferences=[held.mechanism])
            await self._done(self.mesh.request(who, request), wait=wait)

        self.run(work())

    @rule(who=WHO, number=SLOTS, wait=st.booleans())
    def close(self, who, number, wait):
        async def work():
            process = self.mesh.processes.get(who)
            ids = sorted(begin_of(process.front)._lives) if process else []
            if ids:
                key = ids[number % len(ids)]
                self.mesh.note(f"close {key} wait={wait}")
                await self._done(self.mesh.close(who, key), wait=wait)

        self.run(work())

    @rule(who=WHO, number=SLOTS)
    def steal(self, who, number):
        async def work():
            held = self._living(who, number)
            if held is None or not self.mesh.alive("nsmgr1"):
                return
            with contextlib.suppress(Unavailable):
                answer = await self.mesh.steal(who, held.id)
                self.mesh.note(f"steal {held.id}: {answer}"[:200])

        self.run(work())

    # --- what happens to them ---------------------------------------------------------------------------

    @rule(seconds=TIMES)
    def advance(self, seconds):
        self.run(asyncio.sleep(seconds))

    @rule(name=PROCESSES)
    def crash(self, name):
        async def work():
            self.calm = False
            self.mesh.note(f"crash {name}")
            await self.mesh.crash(name)

        self.run(work())

    @rule(name=PROCESSES)
    def crash_and_start(self, name):
        async def work():
            self.calm = False
            self.mesh.note(f"crash and start {name}")
            await self.mesh.crash(name)
            await self.mesh.start(name)

        self.run(work())

    @rule(name=PROCESSES)
    def end_and_start(self, name):
        async def work():
            self.calm = False
            self.mesh.note(f"end and start {name}")
            process = self.mesh.processes.pop(name, None)
            if process is not None:
                await process.end()
            await self.mesh.start(name)

        self.run(work())

    @rule()
    def start_all(self):
        self.run(self.mesh.start())

    @rule(name=PROCESSES)
    def cut(self, name):
        async def work():
            self.calm = False
            self.mesh.note(f"cut {name}")
            self.mesh.network.cut(name)

        self.run(work())

    @precondition(lambda self: self.mesh.requests)
    @rule()
    def cancel(self):
        async def work():
            self.mesh.note("cancel")
            self.mesh.cancel_requests()
            await asyncio.sleep(0)

        self.run(work())

    @rule(kind=st.sampled_from(["error", "cancel", "crash", "stall"]), after=st.integers(0, 220))
    def fault(self, kind, after):
        self.calm = False
        self.mesh.faults.arm(kind, after)
        self.mesh.history.append(f"arm {kind} after {after}")

    @rule(node=st.sampled_from(NODES), who=st.sampled_from([*CLIENTS, *ENDPOINTS, MIDDLE]))
    def lose_namespace(self, node, who):
        async def work():
            self.calm = False
            self.mesh.note(f"crash {who} with its namespace")
            await self.mesh.crash(who)
            for kernel in self.mesh.kernels.values():
                kernel.delete_netns(f"/run/netns/{who}")

        self.run(work())

    @rule()
    def rest(self):
        self.run(self._rest())

    async def _rest(self):
        self.mesh.faults.disarm()
        await self.mesh.start()
        self.mesh.note("rest")
        await asyncio.sleep(self.settled)
        await at_rest(self.mesh)
        self.calm = True

    # --- what holds -------------------------------------------------------------------------------------

    @invariant()
    def holds(self):
        if self.mesh is not None:
            try:
                always(self.mesh)
                assert not self.broken, self.broken
            except AssertionError as error:
                error.add_note("\n".join(self.mesh.history))
                raise

    def teardown(self):
        if self.mesh is not None:
            try:
                self.run(self._end())
            finally:
                with contextlib.suppress(Exception):
                    self.runner.run(self.mesh.stop())
                self.mesh = None
                self.runner.close()
                structlog.reset_defaults()

    async def _end(self):
        mesh = self.mesh
        await self._rest()
        for who in CLIENTS:
            for key in list(begin_of(mesh.processes[who].front)._lives):
                await self._done(mesh.close(who, key), wait=True)
        await asyncio.sleep(self.settled)
        mesh.note("all is closed")
        empty(mesh)
        await mesh.stop()
        await asyncio.sleep(1)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == []


CALM = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

LifeOfConnections.TestCase.settings = settings(CALM, max_examples=60, stateful_step_count=25)
TestLifeOfConnections = LifeOfConnections.TestCase


class LifeWithJournals(LifeOfConnections):
    """The same with processes that keep journals: who crashes and starts knows what it knew, and has asked.

    So nothing of a Request or Close that was cut short waits for the end of a token.
    """

    settled = SOON

    def make_mesh(self):
        return LifeMesh(journals=True)


LifeWithJournals.TestCase.settings = settings(CALM, max_examples=30, stateful_step_count=25)
TestLifeWithJournals = LifeWithJournals.TestCase
