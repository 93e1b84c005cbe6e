"""DiscoverForwarder: who makes the wire."""

from __future__ import annotations

import json

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import NotFound, Refused, TimedOut, Unavailable, Unreachable
from nsmesh.core.lookup import Lookup
from nsmesh.core.peering import TARGET
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.discover_forwarder import DiscoverForwarder
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
    Path,
    PathSegment,
    State,
)
from nsmesh.model.times import timestamp
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE

MANAGER = "tcp://10.0.0.1:5001"


def forwarder(name, *, expires=None, url=MANAGER, **labels):
    entry = NetworkServiceEndpoint(
        name=name,
        network_service_names=["forwarder"],
        network_service_labels={"forwarder": NetworkServiceLabels(labels=labels or {"p2p": "true"})},
        url=f"{url}/{name}",
    )
    if expires is not None:
        entry.expiration_time.CopyFrom(timestamp(expires))
    return entry


class Forwarders(Tail):
    """Answers in the place of all forwarders; those in ``down`` refuse."""

    def __init__(self):
        self.asked = []
        self.closed = []
        self.down = {}

    async def request(self, call, request):
        name = call.get(TARGET).rpartition("/")[2]
        self.asked.append(name)
        if name in self.down:
            raise self.down[name]
        return request.connection

    async def close(self, call, connection):
        target = call.get(TARGET)
        self.closed.append(target.rpartition("/")[2] if target else None)


class Mesh:
    def __init__(self, *forwarders):
        self.services = MemoryStore(SERVICE)
        self.endpoints = MemoryStore(ENDPOINT)
        self.registry = Registry(self.services, self.endpoints)
        self.hops = Forwarders()
        self.begin = Begin()
        self.initial = forwarders
        self.chain = chain(
            self.begin,
            DiscoverForwarder(Lookup(self.registry), MANAGER),
            end=self.hops,
            clock=VirtualClock(),
        )

    async def start(self, *services):
        for service in services or (NetworkService(name="intranet", payload="IP"),):
            await self.services.put(service)
        for entry in self.initial:
            await self.endpoints.put(entry)
        return self

    async def ask(self, *behind, call=None, **fields):
        segments = [PathSegment(name=name, id=f"{name}-id") for name in ("nsc", "mgr", *behind)]
        made = Connection(
            id="mgr-id",
            network_service=fields.pop("service", "intranet"),
            path=Path(index=1, path_segments=segments),
            **fields,
        )
        return await self.chain.request(call or Call(), NetworkServiceRequest(connection=made))

    async def again(self, answer):
        return await self.chain.request(Call(), NetworkServiceRequest(connection=copy_of(answer)))


def test_only_forwarders_of_this_manager_that_match_are_tried():
    """Others' forwarders, expired ones and those without the wanted labels are left out."""

    async def scenario():
        mesh = await Mesh(
            forwarder("other", url="tcp://10.0.0.2:5001"),
            forwarder("old", expires=EPOCH - 1),
            forwarder("plain", color="red"),
            forwarder("good", expires=EPOCH + 60),
        ).start(NetworkService(name="intranet", matches=[Match()]))
        await mesh.ask()
        assert mesh.hops.asked == ["good"]

    run(scenario())


def test_the_next_forwarder_is_tried_when_one_fails():
    """A failed try is closed before the next one, and the connection stays with who granted it."""

    async def scenario():
        mesh = await Mesh(forwarder("a"), forwarder("b")).start()
        mesh.hops.down["a"] = Unavailable("nobody is there")
        answer = await mesh.ask()
        assert mesh.hops.asked == ["a", "b"]
        assert len(mesh.hops.closed) == 1
        mesh.hops.down.clear()
        await mesh.again(answer)
        assert mesh.hops.asked[-1] == "b"
        await mesh.chain.close(Call(), answer)
        assert mesh.hops.closed[-1] == "b"

    run(scenario())


def test_when_all_fail_each_is_named_with_its_reason():
    """The text is the field's; the status is the one that all agree on."""

    async def scenario():
        mesh = await Mesh(forwarder("a"), forwarder("b")).start()
        mesh.hops.down = {"a": Refused("no vxlan"), "b": Refused("no room")}
        with pytest.raises(Refused) as caught:
            await mesh.ask()
        assert str(caught.value) == "all forwarders have failed: a: no vxlan; b: no room"
        mesh.hops.down = {"a": Refused("the same"), "b": Refused("the same")}
        with pytest.raises(Refused, match="all forwarders have failed: a, b: the same"):
            await mesh.ask()
        mesh.hops.down["b"] = NotFound("gone")
        with pytest.raises(Unavailable):
            await mesh.ask()

    run(scenario())


def test_no_try_begins_after_the_deadline():
    """Forwarders for which no time is left are counted, not asked."""

    class Slow(Forwarders):
        async def request(self, call, request):
            import asyncio

            await asyncio.sleep(20)
            return await super().request(call, request)

    async def scenario():
        mesh = Mesh(forwarder("a"), forwarder("b"))
        mesh.hops = Slow()
        mesh.chain = chain(Begin(), DiscoverForwarder(Lookup(mesh.registry), MANAGER), end=mesh.hops)
        await mesh.start()
        mesh.hops.down["a"] = Unavailable("too slow")
        with pytest.raises(TimedOut, match="a: too slow; no time was left for 1 more"):
            await mesh.ask(call=Call().within(10))
        assert mesh.hops.asked == ["a"]

    run(scenario())


def test_the_forwarder_in_the_path_is_preferred():
    """After a restart of the manager a refresh goes where the wire is; a reselecting Request need not."""

    async def scenario():
        mesh = await Mesh(forwarder("a"), forwarder("b")).start()
        await mesh.ask("b")
        assert mesh.hops.asked == ["b"]
        other = await Mesh(forwarder("a"), forwarder("b")).start()
        await other.ask("b", state=State.RESELECT_REQUESTED)
        assert other.hops.asked == ["a"]

    run(scenario())


def test_a_living_connection_is_not_moved_while_its_forwarder_is_registered():
    """A restarting forwarder keeps its wires; another one would make a second wire to the interface."""

    async def scenario():
        mesh = await Mesh(forwarder("a"), forwarder("b")).start()
        answer = await mesh.ask()
        mesh.hops.down["a"] = Unavailable("restarting")
        with pytest.raises(Unavailable, match="a: restarting"):
            await mesh.again(answer)
        assert mesh.hops.asked == ["a", "a"]
        assert mesh.hops.closed == []
        await mesh.endpoints.remove("a")
        await mesh.again(answer)
        assert mesh.hops.asked[-1] == "b"

    run(scenario())


def test_reselecting_forgets_the_forwarder():
    """The old one is closed, and any may be tried."""

    async def scenario():
        mesh = await Mesh(forwarder("b")).start()
        answer = await mesh.ask()
        await mesh.endpoints.put(forwarder("a"))
        mesh.hops.down["b"] = Unavailable("dead")
        answer.state = State.RESELECT_REQUESTED
        await mesh.again(answer)
        assert mesh.hops.closed[0] == "b"
        assert mesh.hops.asked[-1] == "a"

    run(scenario())


def test_a_refresh_survives_a_registry_that_is_away():
    """A living connection goes to its forwarder; a new one cannot be made."""

    class Away(Tail):
        async def find(self, call, query):
            raise Unavailable("the registry is away")
            yield

    async def scenario():
        mesh = await Mesh(forwarder("a")).start()
        answer = await mesh.ask()
        discover = mesh.chain.elements[1]
        discover._registry = Lookup(Away())
        await mesh.again(answer)
        assert mesh.hops.asked == ["a", "a"]
        answer.state = State.RESELECT_REQUESTED
        with pytest.raises(Unavailable, match="the registry is away"):
            await mesh.again(answer)

    run(scenario())


def test_an_unknown_service_is_answered_with_the_nearest():
    """The text is the field's; the remedy is the name or payload that was probably meant."""

    async def scenario():
        mesh = await Mesh(forwarder("a")).start()
        with pytest.raises(NotFound) as caught:
            await mesh.ask(service="intra-net")
        assert str(caught.value) == "network service intra-net is not found - did you mean intranet?"
        with pytest.raises(
            NotFound, match=r"is not found with payload ETHERNET: it is registered with .* IP"
        ):
            await mesh.ask(payload="ETHERNET")
        with pytest.raises(NotFound, match="network service x@there is not found"):
            await mesh.ask(service="x@there")
        assert mesh.hops.asked == []

    run(scenario())


def test_without_a_candidate_each_forwarder_is_explained():
    """The error lists who is there and why they may not; nobody there is said too."""

    async def scenario():
        match = Match(metadata=Metadata(labels={"vlan": "true"}))
        mesh = await Mesh(forwarder("a"), forwarder("b", expires=EPOCH)).start(
            NetworkService(name="intranet", matches=[match])
        )
        with pytest.raises(NotFound) as caught:
            await mesh.ask()
        said = str(caught.value)
        assert said.startswith(
            "no candidates found for a wire to network service intranet among 2 forwarders"
        )
        assert "{vlan=true} is wanted" in said
        assert "b: its registration has expired" in said
        empty = await Mesh().start()
        with pytest.raises(NotFound, match=r"no candidates found .*: no forwarder is registered"):
            await empty.ask()

    run(scenario())


def test_forwarders_may_register_under_another_name():
    """NSM_FORWARDER_NETWORK_SERVICE_NAME: those under the usual name are nobody then, and labels go by it."""

    def under(name, entry, **labels):
        entry.network_service_names[:] = [name]
        entry.network_service_labels.clear()
        entry.network_service_labels[name].labels.update(labels)
        return entry

    async def scenario():
        mesh = Mesh(
            forwarder("usual"),
            under("wires", forwarder("fast"), speed="fast"),
            under("wires", forwarder("slow"), speed="slow"),
        )
        mesh.chain = chain(Begin(), DiscoverForwarder(Lookup(mesh.registry), MANAGER, "wires"), end=mesh.hops)
        await mesh.start(
            NetworkService(name="intranet", matches=[Match(metadata=Metadata(labels={"speed": "slow"}))])
        )
        await mesh.ask()
        assert mesh.hops.asked == ["slow"]
        await mesh.endpoints.remove("fast")
        await mesh.endpoints.remove("slow")
        with pytest.raises(NotFound, match=r"under the service name wires .*NSM_NSNAME=wires"):
            await mesh.ask()

    run(scenario())


def test_a_living_connection_moves_when_nobody_answers_at_its_forwarder():
    """Not at the end of its registration but with the next refresh; the others are not asked twice."""

    async def scenario():
        mesh = await Mesh(forwarder("a"), forwarder("b"), forwarder("c")).start()
        answer = await mesh.ask()
        mesh.hops.down["a"] = Unreachable(f"{MANAGER}/a", "nobody is there")
        answer = await mesh.again(answer)
        assert mesh.hops.asked == ["a", "a", "b"]
        assert mesh.hops.closed == []
        await mesh.again(answer)
        assert mesh.hops.asked[3:] == ["b"]
        mesh.hops.down = {}
        await mesh.again(answer)
        assert mesh.hops.asked[4:] == ["b"]

    run(scenario())


def test_a_dead_forwarder_does_not_hold_up_new_wires():
    """The first Request that meets it goes on to the next; those after it do not ask it."""

    async def scenario():
        mesh = await Mesh(forwarder("a"), forwarder("b")).start()
        mesh.hops.down["a"] = Unreachable(f"{MANAGER}/a", "nobody is there")
        await mesh.ask()
        for answer in mesh.begin.connections:
            await mesh.chain.close(Call(), copy_of(answer))
        await mesh.ask()
        assert mesh.hops.asked == ["a", "b", "b"]

    run(scenario())


def test_a_forwarder_known_by_an_old_descriptor_is_closed_at_where_it_is_now():
    """A manager that started again looks it up by its name; one that is not registered is not guessed."""

    async def scenario():
        mesh = await Mesh(forwarder("one"), forwarder("two")).start()
        for name, expected in (("two", "two"), ("three", None)):
            answer = await mesh.ask()
            life = mesh.begin.life("mgr-id")
            life.state.unpack({"forwarder": json.dumps([name, "unix:///proc/1/fd/16"]).encode()})
            await mesh.chain.close(Call(), answer)
            assert mesh.hops.closed.pop() == expected

    run(scenario())
