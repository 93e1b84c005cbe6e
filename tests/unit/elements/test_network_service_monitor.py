"""NetworkServiceMonitor: a changed service ends the connections that it no longer allows."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.network_service_monitor import NetworkServiceMonitor
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    Destination,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceQuery,
    NetworkServiceRequest,
    State,
)
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE


def wants(app, **source):
    route = Destination(destination_selector={"app": app})
    return NetworkService(name="intranet", matches=[Match(source_selector=source, routes=[route])])


class Counting(Registry):
    """A registry that counts questions, and can break its watches."""

    def __init__(self):
        super().__init__(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
        self.asked = Counter()
        self.broken = False

    def find(self, call, query):
        services = isinstance(query, NetworkServiceQuery)
        self.asked["watch" if query.watch else "service" if services else "endpoint"] += 1
        if self.broken:
            return self._break()
        return super().find(call, query)

    async def _break(self):
        raise Unavailable("the registry is away")
        yield


class Chosen(Tail):
    """The hops behind: answer with the endpoint that was asked for, else with ``choice``; can be slow."""

    def __init__(self):
        self.choice = "a"
        self.closed = []
        self.delay = 0

    async def request(self, call, request):
        made = request.connection
        await asyncio.sleep(self.delay)
        made.network_service_endpoint_name = made.network_service_endpoint_name or self.choice
        return made

    async def close(self, call, connection):
        self.closed.append(connection.id)


class Mesh:
    def __init__(self):
        self.registry = Counting()
        self.hops = Chosen()
        self.begin = Begin()
        self.monitor = NetworkServiceMonitor(self.registry)
        self.chain = chain(self.begin, self.monitor, end=self.hops, clock=VirtualClock())

    @asynccontextmanager
    async def running(self, service=None):
        await self.put(service or wants("a"))
        for name in ("a", "b"):
            labels = {"intranet": NetworkServiceLabels(labels={"app": name})}
            entry = NetworkServiceEndpoint(
                name=name, network_service_names=["intranet"], network_service_labels=labels
            )
            await self.registry.endpoints.put(entry)
        async with self.chain.running():
            yield self

    async def put(self, service):
        await self.registry.services.put(service)

    async def ask(self, connection_id, endpoint="", **labels):
        made = Connection(
            id=connection_id,
            network_service="intranet",
            network_service_endpoint_name=endpoint,
            labels=labels,
        )
        return await self.chain.request(Call(), NetworkServiceRequest(connection=made))

    async def again(self, answer):
        return await self.chain.request(Call(), NetworkServiceRequest(connection=copy_of(answer)))


def scenario(body, service=None):
    async def main():
        mesh = Mesh()
        async with mesh.running(service):
            await body(mesh)

    run(main())


def test_a_connection_ends_when_its_endpoint_is_no_candidate_any_more():
    """Only the connections whose endpoint the changed service excludes are closed."""

    async def body(mesh):
        await mesh.ask("c1")
        mesh.hops.choice = "b"
        await mesh.ask("c2", color="red")
        await asyncio.sleep(1)
        assert mesh.hops.closed == []
        either = wants("b", color="red")
        either.matches.extend(wants("b").matches)
        await mesh.put(either)
        await asyncio.sleep(1)
        assert mesh.hops.closed == ["c1"]
        assert [made.id for made in mesh.begin.connections] == ["c2"]

    both = wants("b", color="red")
    both.matches.extend(wants("a").matches)
    scenario(body, both)


def test_one_watch_for_all_connections_of_a_service():
    """A thousand connections cost one watch and, while nothing changes, no lookup each."""

    async def body(mesh):
        answers = [await mesh.ask(f"c{number}") for number in range(1000)]
        await asyncio.sleep(1)
        assert mesh.registry.asked["watch"] == 1
        assert mesh.registry.asked["endpoint"] <= 2
        for answer in answers[:10]:
            await mesh.again(answer)
        await mesh.put(wants("b"))
        await asyncio.sleep(1)
        assert len(mesh.hops.closed) == 1000
        assert mesh.registry.asked["watch"] == 1
        assert mesh.registry.asked["endpoint"] <= 3
        assert mesh.registry.services.watchers == 0
        assert mesh.monitor._watches == {}

    scenario(body)


def test_the_last_connection_ends_the_watch():
    """Nothing is left when nobody needs it."""

    async def body(mesh):
        first, second = await mesh.ask("c1"), await mesh.ask("c2")
        await asyncio.sleep(1)
        await mesh.chain.close(Call(), first)
        assert mesh.registry.services.watchers == 1
        await mesh.chain.close(Call(), second)
        await asyncio.sleep(1)
        assert mesh.registry.services.watchers == 0
        assert mesh.chain.scope.tasks == 0

    scenario(body)


def test_a_named_endpoint_that_never_was_a_candidate_stays():
    """The client's word counts; but a named one that was a candidate and is none any more goes."""

    async def body(mesh):
        await mesh.ask("named-b", "b")
        await mesh.ask("named-a", "a")
        await asyncio.sleep(1)
        await mesh.put(wants("c"))
        await asyncio.sleep(1)
        assert mesh.hops.closed == ["named-a"]

    scenario(body)


def test_a_change_while_the_connection_is_made_is_noticed():
    """Matching chose by the old service; the watch saw the new one before the connection was there."""

    async def body(mesh):
        await mesh.ask("c1", "b")  # somebody is watching already
        await asyncio.sleep(1)
        mesh.hops.delay = 5
        asked = asyncio.ensure_future(mesh.ask("c2"))
        await asyncio.sleep(1)
        await mesh.put(wants("b"))
        await asked
        await asyncio.sleep(1)
        assert mesh.hops.closed == ["c2"]

    scenario(body)


def test_a_service_or_endpoint_that_disappears_closes_nothing():
    """Healing and refresh decide about those; a service that comes back changed is acted upon."""

    async def body(mesh):
        await mesh.ask("c1")
        await asyncio.sleep(1)
        await mesh.registry.services.remove("intranet")
        await asyncio.sleep(1)
        await mesh.put(wants("a"))
        entry = await mesh.registry.endpoints.get("a")
        kept = copy_of(entry)
        await mesh.registry.endpoints.remove("a")
        await mesh.put(wants("b"))
        await asyncio.sleep(1)
        assert mesh.hops.closed == []
        await mesh.registry.endpoints.put(kept)
        await mesh.put(wants("c"))
        await asyncio.sleep(1)
        assert mesh.hops.closed == ["c1"]

    scenario(body)


def test_a_broken_watch_is_opened_again_with_growing_pauses():
    """A registry that is away for a minute is asked a few times, and what changed meanwhile is seen."""

    async def body(mesh):
        mesh.registry.broken = True
        await mesh.ask("c1")
        await asyncio.sleep(60)
        assert 3 <= mesh.registry.asked["watch"] <= 8
        await mesh.put(wants("b"))
        mesh.registry.broken = False
        await asyncio.sleep(60)
        assert mesh.hops.closed == ["c1"]

    scenario(body)


def test_a_reselected_connection_is_judged_by_its_new_endpoint():
    """What counts is the endpoint and the labels of the last Request."""

    async def body(mesh):
        answer = await mesh.ask("c1")
        mesh.hops.choice = "b"
        again = copy_of(answer)
        again.state = State.RESELECT_REQUESTED
        again.network_service_endpoint_name = ""
        await mesh.chain.request(Call(), NetworkServiceRequest(connection=again))
        mesh.hops.closed.clear()
        await mesh.put(wants("b"))
        await asyncio.sleep(1)
        assert mesh.hops.closed == []

    both = wants("a", color="red")
    both.matches[0].routes.extend(wants("b").matches[0].routes)
    both.matches[0].ClearField("source_selector")
    scenario(body, both)


def test_a_connection_that_goes_over_to_another_service_leaves_the_watch_of_the_first():
    """Nothing of a service stays that nobody has any more, and a Close leaves nothing at all."""

    async def body(mesh):
        answer = await mesh.ask("c-0")
        other = copy_of(answer)
        other.network_service = "lan"
        answer = await mesh.again(other)
        assert list(mesh.monitor._watches) == ["lan"]
        await mesh.chain.close(Call(), answer)
        assert mesh.monitor._watches == {}
        await asyncio.sleep(0)
        assert mesh.chain.scope.tasks == 0

    scenario(body)
