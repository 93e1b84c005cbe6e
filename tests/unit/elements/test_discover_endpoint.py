"""DiscoverEndpoint and RoundRobin: who provides the service."""

from __future__ import annotations

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.deciding import CANDIDATES, Candidate, Candidates
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import NotFound, Refused, Unavailable
from nsmesh.core.lookup import Lookup
from nsmesh.core.peering import TARGET
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.discover_endpoint import DiscoverEndpoint
from nsmesh.elements.round_robin import RoundRobin
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    Destination,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
)
from nsmesh.model.times import timestamp
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE


def endpoint(name, *, expires=None, **labels):
    entry = NetworkServiceEndpoint(
        name=name,
        network_service_names=["intranet"],
        network_service_labels={"intranet": NetworkServiceLabels(labels=labels)},
        url=f"unix:///{name}",
    )
    if expires is not None:
        entry.expiration_time.CopyFrom(timestamp(expires))
    return entry


class Endpoints(Tail):
    """Answers in the place of all endpoints; those in ``down`` refuse."""

    def __init__(self):
        self.asked = []
        self.seen = []
        self.closed = 0
        self.down = {}

    async def request(self, call, request):
        name = request.connection.network_service_endpoint_name
        assert call.get(TARGET) == f"unix:///{name}"
        self.asked.append(name)
        self.seen.append(copy_of(request.connection))
        if name in self.down:
            raise self.down[name]
        return request.connection

    async def close(self, call, connection):
        self.closed += 1


class Mesh:
    def __init__(self, *endpoints):
        self.services = MemoryStore(SERVICE)
        self.endpoints = MemoryStore(ENDPOINT)
        self.initial = endpoints
        self.hops = Endpoints()
        self.discover = DiscoverEndpoint(Lookup(Registry(self.services, self.endpoints)))
        self.chain = chain(Begin(), self.discover, RoundRobin(), end=self.hops, clock=VirtualClock())
        self.number = 0

    async def start(self, service=None):
        await self.services.put(service or NetworkService(name="intranet", payload="IP"))
        for entry in self.initial:
            await self.endpoints.put(entry)
        return self

    async def ask(self, **fields):
        self.number += 1
        made = Connection(id=f"c{self.number}", network_service="intranet", **fields)
        return await self.chain.request(Call(), NetworkServiceRequest(connection=made))

    async def again(self, answer):
        return await self.chain.request(Call(), NetworkServiceRequest(connection=copy_of(answer)))


def test_endpoints_take_turns_and_refreshes_stick():
    """Each new connection goes to the next endpoint; a refresh goes to the same one."""

    async def scenario():
        mesh = await Mesh(endpoint("a"), endpoint("b"), endpoint("c")).start()
        answers = [await mesh.ask() for _ in range(4)]
        assert mesh.hops.asked == ["a", "b", "c", "a"]
        await mesh.again(answers[1])
        assert mesh.hops.asked[-1] == "b"
        assert answers[1].network_service_endpoint_name == "b"

    run(scenario())


def test_whoever_was_just_left_is_asked_last():
    """A reselect whose turn comes again goes to others first, and to the same where nobody else serves."""

    async def scenario():
        mesh = await Mesh(endpoint("a"), endpoint("b")).start()

        async def once(name):
            made = Connection(id=name, network_service="intranet")
            answer = await mesh.chain.request(Call(), NetworkServiceRequest(connection=made))
            return answer.network_service_endpoint_name

        async with mesh.chain.running():
            first = await once("x")
            await once("y")  # so that it is the first one's turn again
            await mesh.chain.close(Call(), Connection(id="x"))
            assert {first, await once("x")} == {"a", "b"}
            mesh.hops.down["a"] = Refused("full")
            await mesh.chain.close(Call(), Connection(id="x"))
            assert await once("x") == "b"
            await mesh.chain.close(Call(), Connection(id="x"))
            assert await once("x") == "b"

    run(scenario())


def test_a_named_endpoint_that_is_silent_has_little_time():
    """Who asks again of an endpoint that has just died is not held up by it for long."""

    async def scenario():
        mesh = await Mesh(endpoint("a")).start()
        left = []

        class Far(Tail):
            async def request(self, call, request):
                left.append(call.remaining())
                return request.connection

        lookup = Lookup(Registry(mesh.services, mesh.endpoints))
        for silent in (True, False):
            discover = DiscoverEndpoint(lookup, lambda url, is_so=silent: is_so and url == "unix:///a")
            handler = chain(Begin(), discover, RoundRobin(), end=Far(), clock=VirtualClock())
            made = Connection(id="x", network_service="intranet", network_service_endpoint_name="a")
            await handler.request(Call().within(15), NetworkServiceRequest(connection=made))
        assert left == [pytest.approx(0.2), pytest.approx(15)]

    run(scenario())


def test_the_payload_comes_from_the_service():
    """Also where the endpoint is named and the payload empty; a payload that is set stays."""

    async def scenario():
        mesh = await Mesh(endpoint("a")).start()
        assert (await mesh.ask()).payload == "IP"
        assert (await mesh.ask(network_service_endpoint_name="a")).payload == "IP"
        named = await mesh.ask(network_service_endpoint_name="a", payload="ETHERNET")
        assert named.payload == "ETHERNET"
        await mesh.services.remove("intranet")
        assert (await mesh.ask(network_service_endpoint_name="a")).payload == ""

    run(scenario())


def test_a_refusing_endpoint_is_followed_by_the_others_once_each():
    """The first that grants it has it; half connections are closed in between."""

    async def scenario():
        mesh = await Mesh(endpoint("a"), endpoint("b"), endpoint("c")).start()
        mesh.hops.down = {"a": Refused("full"), "b": Refused("asleep")}
        answer = await mesh.ask()
        assert mesh.hops.asked == ["a", "b", "c"]
        assert answer.network_service_endpoint_name == "c"
        assert mesh.hops.closed == 2
        assert all(made.payload == "IP" for made in mesh.hops.seen)

    run(scenario())


def test_when_all_refuse_each_answer_is_listed():
    """The error names the service, the endpoints and what each of them said."""

    async def scenario():
        mesh = await Mesh(endpoint("a"), endpoint("b")).start()
        mesh.hops.down = {"a": Refused("full"), "b": Refused("asleep")}
        with pytest.raises(Refused) as caught:
            await mesh.ask()
        assert str(caught.value) == (
            "all endpoints of network service intranet have failed: a: full; b: asleep"
        )

    run(scenario())


def test_an_endpoint_that_two_routes_want_has_two_turns_but_one_try():
    """Repeats count in the round, and not among the tries of one Request."""

    async def scenario():
        match = Match(
            routes=[
                Destination(destination_selector={"app": "a"}),
                Destination(destination_selector={"app": "a"}),
                Destination(destination_selector={"app": "b"}),
            ]
        )
        mesh = await Mesh(endpoint("a", app="a"), endpoint("b", app="b")).start(
            NetworkService(name="intranet", matches=[match])
        )
        for _ in range(3):
            await mesh.ask()
        assert mesh.hops.asked == ["a", "a", "b"]
        mesh.hops.down = {"a": Refused("full"), "b": Refused("full")}
        mesh.hops.asked.clear()
        with pytest.raises(Refused):
            await mesh.ask()
        assert mesh.hops.asked == ["a", "b"]

    run(scenario())


def test_without_a_candidate_each_endpoint_is_explained():
    """The text is the field's, and the list says who is there and why they may not."""

    async def scenario():
        match = Match(routes=[Destination(destination_selector={"app": "gateway"})])
        service = NetworkService(name="intranet", matches=[match])
        mesh = await Mesh(endpoint("a", app="fw"), endpoint("b", expires=EPOCH)).start(service)
        with pytest.raises(NotFound) as caught:
            await mesh.ask()
        said = str(caught.value)
        assert said.startswith(
            "network service endpoint candidates not found among 2 of network service intranet"
        )
        assert "a: match 0: has {app=fw}, but {app=gateway} is wanted" in said
        assert "b: its registration has expired" in said
        with pytest.raises(NotFound, match="candidates not found: network service intranet has no endpoint"):
            await (await Mesh().start()).ask()

    run(scenario())


def test_a_named_endpoint_is_taken_as_it_is():
    """No matching, no expiry, no turns: the client's word; an unknown name is not found."""

    async def scenario():
        match = Match(routes=[Destination(destination_selector={"app": "gateway"})])
        mesh = await Mesh(endpoint("a", expires=EPOCH)).start(
            NetworkService(name="intranet", matches=[match])
        )
        await mesh.ask(network_service_endpoint_name="a")
        assert mesh.hops.asked == ["a"]
        with pytest.raises(NotFound, match="network service endpoint z not found"):
            await mesh.ask(network_service_endpoint_name="z")

    run(scenario())


def test_a_refresh_survives_a_registry_that_is_away():
    """The connection goes where it went, from its first refresh on; a new one cannot be made."""

    class Away(Tail):
        async def find(self, call, query):
            raise Unavailable("the registry is away")
            yield

    async def scenario():
        mesh = await Mesh(endpoint("a")).start()
        answer = await mesh.ask()
        mesh.discover._registry = Lookup(Away())
        await mesh.again(answer)
        await mesh.again(answer)
        assert mesh.hops.asked == ["a", "a", "a"]
        for fields in ({}, {"network_service_endpoint_name": "a"}):
            with pytest.raises(Unavailable):
                await mesh.ask(**fields)

    run(scenario())


def test_round_robin_leaves_a_chosen_endpoint_alone():
    """Without candidates it passes on; with none among them it says so."""

    async def scenario():
        handler = chain(RoundRobin(), end=Tail())
        made = NetworkServiceRequest(connection=Connection(network_service_endpoint_name="a"))
        assert (await handler.request(Call(), made)).network_service_endpoint_name == "a"
        chosen = Candidates("intranet", (Candidate("b", "unix:///b"),))
        assert (
            await handler.request(Call().put(CANDIDATES, chosen), made)
        ).network_service_endpoint_name == "a"  # what a forwarder in front of this one had to choose from
        made = NetworkServiceRequest(connection=Connection())
        with pytest.raises(NotFound):
            await handler.request(Call().put(CANDIDATES, Candidates("intranet", ())), made)
        answer = await handler.request(Call().put(CANDIDATES, chosen), made)
        assert answer.network_service_endpoint_name == "b"

    run(scenario())
