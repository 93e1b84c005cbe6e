"""A client takes over what its predecessor left, while managers and forwarders restart: the wire stays."""

import asyncio

import pytest
import structlog
from life_checks import empty
from life_mesh import CLIENTS, LifeMesh, begin_of
from life_network import Tokens

from nsmesh.chains.nsc import running_nsc
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.settings_nsc import NscSettings
from nsmesh.core.virtual import VirtualLoop

pytestmark = pytest.mark.timeout(240)

WHO = CLIENTS[0]
BOTH = ("nsmgr1", "fwd1")
ALL = (*BOTH, "nsmgr2", "fwd2")


@pytest.fixture(autouse=True)
def silent():
    """Let nothing be logged: a Request that is refused is told five times a second."""
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()


def _drop(_, __, event):
    raise structlog.DropEvent


class TakingOver(LifeMesh):
    """A mesh with one wire, whose client has ended; the next one is an nsc that asks as in a pod."""

    successor = False

    async def _client(self, process):
        if not self.successor:
            await super()._client(process)
            return
        settings = NscSettings(
            name=WHO,
            connect_to="unix:///nsmgr1",
            network_services=(f"kernel://{self.service}/nsm-1",),
            netns=self.space(WHO),
        )
        runtime = Runtime(process.peers, Tokens(WHO, self.clock), clock=self.clock)
        running = running_nsc(settings, runtime, alive=self._looks_alive)
        chain = await process.stack.enter_async_context(running)
        process.front, process.chains = chain, [chain]

    async def leave_wire(self, service):
        self.service = service
        await self.start()
        await asyncio.sleep(1)
        await self.request(WHO, self.asked(WHO, 0, service, "nsm-1"))
        await self.crash(WHO)
        del self.journals[WHO]
        await asyncio.sleep(1)
        self.successor = True
        return self.seen()

    def seen(self):
        """Return what the kernels have, and who has which address."""
        return [dict(kernel.interfaces) for kernel in self.kernels.values()], self.leases()

    def wires(self):
        return begin_of(self.processes[WHO].front).connections

    async def restart(self, names, how, gone):
        """End processes at once; the next ones come ``gone`` seconds later, one after another."""
        for name in names:
            if how == "killed":
                await self.crash(name)
            elif name in self.processes:
                await self.processes.pop(name).end()
        for name in names:
            await asyncio.sleep(gone)
            await self.start(name)


def run(work):
    async def main():
        mesh = TakingOver(journals=True, descriptors=True)
        try:
            await work(mesh)
        finally:
            await mesh.stop()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("service", ["lan", "intranet"])
@pytest.mark.parametrize(
    ("names", "how", "gone"),
    [
        (("fwd1",), "killed", 3.0),
        (BOTH, "killed", 0.5),
        (BOTH, "ended", 3.0),
        (BOTH, "killed", 15.0),
        (ALL, "ended", 5.0),
    ],
)
@pytest.mark.parametrize("after", [-0.2, 0.006, 0.013])
def test_no_restart_cuts_the_wire(service, names, how, gone, after):
    """Interfaces and addresses are the same, and the client has the wire, however long others are gone.

    ``after``: seconds from the client's start to the end of the others; a Request takes some 20 ms.
    """

    async def work(mesh):
        before = await mesh.leave_wire(service)
        restarting = asyncio.ensure_future(_later(max(after, 0), mesh.restart(names, how, gone)))
        await asyncio.sleep(max(-after, 0))
        await mesh.start(WHO)
        await restarting
        await asyncio.sleep(10)
        assert [one.id for one in mesh.wires()] == [f"{WHO}-0"]
        assert mesh.seen() == before

    run(work)


async def _later(seconds, work):
    await asyncio.sleep(seconds)
    await work


def test_an_end_while_it_takes_over_closes_the_wire():
    """A client that ends before anybody has answered leaves nothing: no address waits for a token's end."""

    async def work(mesh):
        await mesh.leave_wire("lan")
        await mesh.crash("fwd1")
        await mesh.start(WHO)
        await asyncio.sleep(2)
        await mesh.processes.pop(WHO).end()
        await asyncio.sleep(2)
        await mesh.start("fwd1")
        await asyncio.sleep(10)
        for name in [name for name in mesh.processes if name in CLIENTS]:
            await mesh.processes.pop(name).end()
        empty(mesh)

    run(work)


def test_an_endpoint_that_stays_away_is_given_up():
    """Another endpoint takes its place; of the first wire nothing is left."""

    async def work(mesh):
        _, leases = await mesh.leave_wire("intranet")
        ((endpoint, _),) = leases
        await mesh.crash(endpoint)
        mesh.kernels[int(endpoint[-1])].delete_netns(mesh.space(endpoint))
        await mesh.crash("fwd1")
        await mesh.start(WHO)
        await asyncio.sleep(1)
        await mesh.start("fwd1")
        await asyncio.sleep(90)
        assert [one.network_service_endpoint_name != endpoint for one in mesh.wires()] == [True]
        assert len(mesh.leases()) == 1

    run(work)
