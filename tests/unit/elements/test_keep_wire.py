"""KeepWire: repairs are one at a time for a wire, ever later for who insists, and told where they fail."""

import asyncio

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import chain
from nsmesh.core.errors import NotFound
from nsmesh.core.metrics import DECLARED
from nsmesh.core.virtual import run
from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.keep_wire import KeepWire
from nsmesh.elements.monitor import Monitor
from nsmesh.elements.update_path import UpdatePath
from nsmesh.model.messages import Connection, NetworkServiceRequest, State


class Granted:
    """The end of a chain: grants what is asked for."""

    async def request(self, call, request):
        return request.connection

    async def close(self, call, connection):
        pass


def kept(scenario):
    """Run a scenario with one connection whose wire stands, and the list of what is told."""

    async def main():
        datapath, told, begin = FakeDatapath(), [], Begin()
        keeping = KeepWire(datapath, begin, told.append)
        server = chain(
            UpdatePath("forwarder", begin=begin),
            begin,
            Monitor("forwarder"),
            keeping,
            end=Granted(),
            name="forwarder",
        )
        async with server.running():
            answer = await server.request(
                Call(peer=Peer(in_process=True)), NetworkServiceRequest(connection=Connection(id="c"))
            )
            wire_id = answer.path.path_segments[answer.path.index].id
            wire = CrossConnect(wire_id, KernelPort("/a", "nsm-1"), KernelPort("/b", "nsm-2"))
            await datapath.apply(wire)
            await scenario(datapath, wire_id, told, server)

    run(main())


def test_a_lost_wire_is_made_again():
    """It stands again without any time passing, nobody is told, and it is counted."""

    async def restored():
        return sum(one.value for one in await DECLARED["nsm_wires_restored"].samples())

    async def scenario(datapath, wire_id, told, server):
        before = await restored()
        datapath.lose(wire_id)
        await asyncio.sleep(0.001)
        assert await restored() == before + 1
        assert datapath.kernel.wire(wire_id) is not None
        assert told == []

    kept(scenario)


def test_who_insists_is_answered_later():
    """Of a hundred deletions in ten seconds a handful is undone at once, and the last one in the end."""

    async def scenario(datapath, wire_id, told, server):
        await asyncio.sleep(0)
        before = datapath.calls["apply"]
        for _ in range(100):
            if datapath.kernel.wire(wire_id) is not None:
                datapath.lose(wire_id)
            await asyncio.sleep(0.1)
        assert datapath.calls["apply"] - before <= 8
        await asyncio.sleep(20)
        assert datapath.kernel.wire(wire_id) is not None

    kept(scenario)


def test_what_cannot_be_made_is_told():
    """The observer hears once, and soon, that the path is down."""

    async def scenario(datapath, wire_id, told, server):
        datapath.fail("apply", NotFound("the network namespace /b is not there"))
        datapath.lose(wire_id)
        await asyncio.sleep(0.15)
        assert [(list(event.connections), event.up) for event in told] == [([wire_id], False)]

    kept(scenario)


def test_what_was_chosen_anew_meanwhile_is_not_told():
    """A reselecting Request in the grace after a loss: the wire is another one, and the loss is over."""

    async def scenario(datapath, wire_id, told, server):
        datapath.fail("apply", NotFound("the network namespace /b is not there"))
        datapath.lose(wire_id)
        await asyncio.sleep(0.01)
        [before] = server.elements[1].connections
        anew = Connection(id="c", network_service="another", state=State.RESELECT_REQUESTED)
        await server.request(Call(peer=Peer(in_process=True)), NetworkServiceRequest(connection=anew))
        [after] = server.elements[1].connections
        assert (before.id, after.network_service) == (wire_id, "another")
        assert after.id == wire_id
        await asyncio.sleep(0.5)
        assert told == []

    kept(scenario)
