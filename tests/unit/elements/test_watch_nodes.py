"""WatchNodes: one stream of echoes per node, and one event for all wires that lead there."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM, ENDPOINT, Candidate
from nsmesh.core.element import Element, chain
from nsmesh.core.farewell import ABSENT
from nsmesh.core.metrics import DECLARED
from nsmesh.core.node_session import Condition
from nsmesh.core.virtual import run
from nsmesh.elements.watch_nodes import WatchNodes
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest

FAR, OTHER = "192.0.2.2", "192.0.2.3"


class Answering:
    """Echoes that all nodes but the ``dead`` answer."""

    def __init__(self, opens=True):
        self.dead = set()
        self.waiting = []
        self.sent = []
        self.opens = opens
        self.closed = False

    def open(self):
        if not self.opens:
            raise PermissionError(1, "not permitted")

    def close(self):
        self.closed = True

    def reaches(self, node):
        return node.startswith("192.0.2.") and node != "192.0.2.1"

    def send(self, node, sequence):
        self.sent.append(node)
        if node not in self.dead:
            self.waiting.append((node, sequence, 0.001))

    def heard(self):
        found, self.waiting = self.waiting, []
        return found


def url_of(node):
    return f"tcp://{node}:5001"


class Last(Element):
    """Grants what is asked for; a wire without a remote mechanism leads to the node that its name says."""

    def __init__(self):
        self.closes = {}

    async def close(self, call, connection, next):
        self.closes[connection.id] = bool(call.get(ABSENT))

    async def request(self, call, request, next):
        connection = request.connection
        node = connection.mechanism.parameters.get("src_ip") or connection.network_service
        call.state.set(ENDPOINT, Candidate("nse", url_of(node)))
        if connection.network_service:
            mechanism = Mechanism(cls="REMOTE", type="VXLAN", parameters={"dst_ip": node})
            call.state.set(DOWNSTREAM, mechanism)
        return connection


class Told(list):
    """Events, and ``left``: the URLs that were parted with."""

    def __init__(self):
        super().__init__()
        self.left = []


@asynccontextmanager
async def watching(echoes, interval=0.05):
    told = Told()
    element = WatchNodes(echoes, told.append, interval=interval, part=told.left.append)
    last = Last()
    handler = chain(Begin(), element, last)
    told.closes = last.closes
    async with handler.running():
        yield handler, element, told


def wire(number, node=FAR):
    mechanism = Mechanism(cls="REMOTE", type="VXLAN", parameters={"src_ip": node})
    return Connection(id=f"c{number}", mechanism=mechanism)


def onward(number, node=FAR):
    """Return a wire from here to an endpoint on another node."""
    return Connection(id=f"c{number}", network_service=node, mechanism=Mechanism(cls="LOCAL", type="KERNEL"))


async def ask(handler, connection):
    await handler.request(Call(), NetworkServiceRequest(connection=connection))


async def lost():
    return sum(one.value for one in await DECLARED["nsm_nodes_lost"].samples())


def test_a_node_that_dies_is_told_once_for_all_its_wires():
    """A hundred wires cost what one does; those of another node are not told; a node that is back is."""

    async def main():
        echoes, before = Answering(), await lost()
        async with watching(echoes) as (handler, element, told):
            for number in range(100):
                await ask(handler, wire(number))
            await ask(handler, wire(100, OTHER))
            await asyncio.sleep(1)
            assert 15 <= echoes.sent.count(FAR) <= 25
            assert told == []
            echoes.dead.add(FAR)
            await asyncio.sleep(0.21)
            [event] = told
            assert (len(event.connections), event.up) == (100, False)
            assert FAR in event.why
            assert await lost() == before + 1  # nsm_nodes_lost
            await handler.close(Call(), wire(0))
            echoes.dead.clear()
            await asyncio.sleep(1.1)
            assert (len(told), len(told[1].connections), told[1].up) == (2, 99, True)
            assert element.watched == {FAR: Condition.ALIVE, OTHER: Condition.ALIVE}
        assert echoes.closed

    run(main())


def test_nobody_is_asked_without_wires():
    """With its last wire a node is asked no more, and no timer stays."""

    async def main():
        echoes = Answering()
        async with watching(echoes) as (handler, element, _told):
            await ask(handler, wire(1))
            await ask(handler, Connection(id="near", mechanism=Mechanism(cls="LOCAL", type="KERNEL")))
            await ask(handler, wire(2, "192.0.2.1"))
            assert list(element.keeps()) == ["c1"]
            await handler.close(Call(), wire(1))
            await asyncio.sleep(0.25)
            count = len(echoes.sent)
            await asyncio.sleep(2)
            assert (len(echoes.sent), element.scope.timers, element.watched) == (count, 0, {})

    run(main())


def test_a_wire_that_moves_to_another_node_is_that_ones():
    """After a refresh by way of another node the death of the first says nothing of it."""

    async def main():
        echoes = Answering()
        async with watching(echoes) as (handler, element, told):
            await ask(handler, wire(1))
            await ask(handler, wire(1, OTHER))
            await asyncio.sleep(0.5)
            echoes.dead.add(FAR)
            await asyncio.sleep(1)
            assert told == []
            assert element.watched == {OTHER: Condition.ALIVE}

    run(main())


def test_whoever_was_reached_by_way_of_a_dead_node_is_silent():
    """Its URL is passed over and parted with, also when its last wire is closed; others are not."""

    async def main():
        echoes = Answering()
        async with watching(echoes) as (handler, element, told):
            await ask(handler, onward(1))
            await ask(handler, onward(2, OTHER))
            await asyncio.sleep(0.5)
            echoes.dead.add(FAR)
            await asyncio.sleep(0.25)
            assert told.left == [url_of(FAR)]
            await handler.close(Call(), onward(1))
            assert (element.is_silent(url_of(FAR)), element.is_silent(url_of(OTHER))) == (True, False)
            assert element.watched == {OTHER: Condition.ALIVE}
            await asyncio.sleep(9.5)
            assert element.is_silent(url_of(FAR))
            await asyncio.sleep(2)
            assert not element.is_silent(url_of(FAR))
            sent = echoes.sent.count(FAR)
            await asyncio.sleep(5)
            assert echoes.sent.count(FAR) == sent

    run(main())


def test_a_close_by_way_of_a_dead_node_says_so():
    """Only who is reached there is not asked: a wire that came from a dead node ends at an endpoint here."""

    async def main():
        echoes = Answering()
        async with watching(echoes) as (handler, _element, told):
            for connection in (onward(1), onward(2, OTHER), wire(3)):
                await ask(handler, connection)
            await asyncio.sleep(0.5)
            echoes.dead.add(FAR)
            await asyncio.sleep(0.25)
            for connection in (onward(1), onward(2, OTHER), wire(3)):
                await handler.close(Call(), connection)
            assert told.closes == {"c1": True, "c2": False, "c3": False}

    run(main())


def test_a_dead_node_that_is_back_is_not_silent_though_no_wire_leads_there():
    """Two nodes that die and return in turn never hide each other: the one that is back is known to be."""

    async def main():
        echoes = Answering()
        async with watching(echoes) as (handler, element, _told):
            for number in range(6):
                dead, other = ((FAR, OTHER), (OTHER, FAR))[number % 2]
                await ask(handler, onward(number, dead))
                await asyncio.sleep(0.5)
                echoes.dead.add(dead)
                await asyncio.sleep(0.25)
                await handler.close(Call(), onward(number, dead))
                assert (element.is_silent(url_of(dead)), element.is_silent(url_of(other))) == (True, False)
                echoes.dead.clear()
                await asyncio.sleep(1)
                assert not element.is_silent(url_of(dead))

    run(main())


def test_the_death_of_a_clients_node_says_nothing_of_the_endpoints_here():
    """Wires that came from there end here: who serves them is not silent, nor is the way to them given up."""

    async def main():
        echoes = Answering()
        async with watching(echoes) as (handler, element, told):
            await ask(handler, wire(1))
            await asyncio.sleep(0.5)
            echoes.dead.add(FAR)
            await asyncio.sleep(0.25)
            [event] = told
            assert (event.up, told.left) == (False, [])
            assert not element.is_silent(url_of(FAR))

    run(main())


@pytest.mark.parametrize(("interval", "opens"), [(0.0, True), (0.05, False)])
def test_without_echoes_all_else_goes_on(interval, opens):
    """Switched off, or not permitted: wires are made, nothing is told."""

    async def main():
        echoes = Answering(opens)
        async with watching(echoes, interval) as (handler, element, told):
            await ask(handler, wire(1))
            await asyncio.sleep(1)
            assert (echoes.sent, told, list(element.keeps())) == ([], [], [])

    run(main())
