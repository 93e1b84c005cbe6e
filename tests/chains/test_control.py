"""The life of a connection over three processes, in virtual time: made, kept, healed, ended, forgotten."""

import asyncio
from contextlib import aclosing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_mesh import LIFE, SmallMesh

from nsmesh.core.call import Call, Peer
from nsmesh.core.errors import MeshError, Refused, Unavailable
from nsmesh.core.virtual import run
from nsmesh.model.messages import Connection, ConnectionEventType, MonitorScopeSelector, State


def scenario(body, **options):
    """Run ``body(mesh)``; afterwards nothing may be left, anywhere."""

    async def main():
        mesh = SmallMesh(**options)
        async with mesh.running():
            await body(mesh)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks

    run(main())


async def listen(mesh, events, who="mgr", peer=None):
    """Note (type, state, index) of each event's connections at a monitor."""
    handler = mesh.manager if who == "mgr" else mesh.endpoints[who]
    async with aclosing(handler.monitor(Call(peer=peer or Peer()), MonitorScopeSelector())) as stream:
        async for event in stream:
            name = ConnectionEventType.Name(event.type)
            events.append(
                (name, [(c.id, State.Name(c.state), c.path.index) for c in event.connections.values()])
            )


def test_a_request_goes_to_the_end_and_its_path_comes_back():
    """Each process has one segment, each token speaks to the next hop, the last one to the hop before it."""

    async def body(mesh):
        answer = await mesh.ask()
        segments = answer.path.path_segments
        assert [segment.name for segment in segments] == ["nsc", "mgr", "nse1"]
        assert [segment.token for segment in segments] == ["nsc>mgr", "mgr>nse1", "nse1>mgr"]
        assert (answer.id, answer.path.index, answer.state) == ("nsc-0", 0, State.UP)
        assert mesh.holds() == {"nsc": 1, "mgr": 1, "onward": 1, "nse1": 1, "nse2": 0}
        again = await mesh.ask()
        assert [segment.id for segment in again.path.path_segments] == [segment.id for segment in segments]
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body)


def test_refreshes_keep_it_alive_for_hours():
    """Six hours on tokens of ten minutes; about one refresh in two minutes, never later than that."""

    async def body(mesh):
        await mesh.ask()
        await asyncio.sleep(6 * 3600)
        assert mesh.lives() == {"nsc": 1, "mgr": 1, "onward": 1, "nse1": 1, "nse2": 0}
        assert 180 <= mesh.probes["nse1"].requests <= 202
        assert mesh.client.scope.timers == 1
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body)


def test_a_client_that_stops_refreshing_is_closed_everywhere():
    """A client that vanishes is gone from every hop at its token's end less its deadline, and not before."""

    async def body(mesh):
        events = []
        listener = asyncio.ensure_future(listen(mesh, events))
        await mesh.ask(deadline=15)
        mesh.cable.cut()
        await asyncio.sleep(LIFE - 16)
        assert mesh.lives()["nse1"] == 1
        await asyncio.sleep(2)
        assert mesh.lives() == {"nsc": 1, "mgr": 0, "onward": 0, "nse1": 0, "nse2": 0}
        assert [kind for kind, _ in events] == ["INITIAL_STATE_TRANSFER", "UPDATE", "DELETE"]
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body, heal=False)


def test_a_deadline_longer_than_the_token_does_not_close_at_once():
    """Where the field takes the whole budget of one call off the token's life, a third at most is taken."""

    async def body(mesh):
        await mesh.ask(deadline=15)
        mesh.cable.cut()
        await asyncio.sleep(6)
        assert mesh.lives()["nse1"] == 1
        await asyncio.sleep(1)
        assert mesh.lives()["nse1"] == 0
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body, lifetime=10.0, heal=False)


def test_monitors_see_the_life_at_every_hop():
    """UPDATE on Request and refresh, DELETE on Close, with the serving process's id and index."""

    async def body(mesh):
        events, far = [], []
        listeners = [
            asyncio.ensure_future(listen(mesh, events)),
            asyncio.ensure_future(listen(mesh, far, "nse1")),
        ]
        answer = await mesh.ask()
        own = [segment.id for segment in answer.path.path_segments]
        await mesh.ask()
        await mesh.close()
        await asyncio.sleep(1)
        for seen, place in ((events, 1), (far, 2)):
            assert seen == [
                ("INITIAL_STATE_TRANSFER", []),
                ("UPDATE", [(own[place], "UP", place)]),
                ("UPDATE", [(own[place], "UP", place)]),
                ("DELETE", [(own[place], "UP", place)]),
            ]
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        mesh.assert_empty()

    scenario(body)


def test_a_failed_refresh_is_down_until_the_next_one():
    """UPDATE in state DOWN when a refresh fails, UP again when one succeeds."""

    async def body(mesh):
        events = []
        await mesh.ask()
        listener = asyncio.ensure_future(listen(mesh, events))
        await asyncio.sleep(0.1)

        async def refuse():
            raise Refused("no")

        mesh.probes["mgr"].plan.append(("in", refuse))
        with pytest.raises(Refused):
            await mesh.ask()
        await asyncio.sleep(0.1)
        await mesh.ask()
        await asyncio.sleep(0.1)
        assert [state for _, [(_, state, _)] in events] == ["UP", "DOWN", "UP"]
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

    scenario(body, heal=False)


def test_an_endpoint_that_dies_is_replaced():
    """Without a liveness check: the stream breaks, the manager says DOWN, the client reselects."""

    async def body(mesh):
        answer = await mesh.ask()
        assert answer.network_service_endpoint_name == "nse1"
        await asyncio.sleep(1)
        mesh.choose.crossed.add("nse1")
        mesh.cables["nse1"].cut()
        await asyncio.sleep(2)
        [connection] = mesh.begins["nsc"].connections
        assert connection.network_service_endpoint_name == "nse2"
        assert [segment.name for segment in connection.path.path_segments] == ["nsc", "mgr", "nse2"]
        assert mesh.holds()["nse2"] == 1
        assert mesh.heal.healing == []
        await mesh.close()
        await asyncio.sleep(LIFE)
        mesh.assert_empty()

    scenario(body)


def test_healing_goes_on_until_it_can():
    """With nobody to go to, attempts go on with pauses of at most two seconds; then it succeeds."""

    async def body(mesh):
        await mesh.ask()
        mesh.choose.crossed.update(mesh.cables)
        mesh.cables["nse1"].cut()
        await asyncio.sleep(60)
        assert mesh.heal.healing == ["nsc-0"]
        assert mesh.begins["nsc"].connections == []
        mesh.choose.crossed.discard("nse2")
        await asyncio.sleep(4)
        assert mesh.heal.healing == []
        assert mesh.begins["nsc"].connections[0].network_service_endpoint_name == "nse2"
        await mesh.close()
        await asyncio.sleep(LIFE)
        mesh.assert_empty()

    scenario(body)


def test_a_close_ends_the_healing():
    """A user's Close while healing goes on stops it for good."""

    async def body(mesh):
        await mesh.ask()
        mesh.choose.crossed.update(mesh.cables)
        mesh.cables["nse1"].cut()
        await asyncio.sleep(30)
        await mesh.close()
        mesh.choose.crossed.clear()
        await asyncio.sleep(LIFE)
        assert mesh.probes["nse2"].requests == 0
        mesh.assert_empty()

    scenario(body)


def test_with_packets_going_through_the_same_endpoint_is_asked_again():
    """A manager that restarts is asked for the same: no Close, no other endpoint, the same ids."""

    async def alive(connection):
        return True

    async def body(mesh):
        answer = await mesh.ask()
        mesh.cable.cut()
        await asyncio.sleep(5)
        assert mesh.heal.healing == ["nsc-0"]
        mesh.cable.up = True
        await asyncio.sleep(3)
        assert mesh.heal.healing == []
        [connection] = mesh.begins["nsc"].connections
        assert [s.id for s in connection.path.path_segments] == [s.id for s in answer.path.path_segments]
        assert mesh.holds()["nse1"] == 1
        assert mesh.probes["nse2"].requests == 0
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body, alive=alive)


def test_dead_packets_alone_make_it_choose_anew():
    """The control plane is well, no packets come back: Close and reselect."""
    dead = set()

    async def alive(connection):
        return connection.network_service_endpoint_name not in dead

    async def body(mesh):
        await mesh.ask()
        dead.add("nse1")
        mesh.choose.crossed.add("nse1")
        await asyncio.sleep(2)
        assert mesh.begins["nsc"].connections[0].network_service_endpoint_name == "nse2"
        assert mesh.holds()["nse1"] == 0
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body, alive=alive)


def test_an_endpoint_can_ask_for_a_refresh():
    """REFRESH_REQUESTED at the endpoint travels to the client, which asks again at once."""

    async def body(mesh):
        answer = await mesh.ask()
        await asyncio.sleep(1)
        assert mesh.monitors["nse1"].mark(answer.path.path_segments[2].id, State.REFRESH_REQUESTED)
        await asyncio.sleep(1)
        assert mesh.probes["nse1"].requests == 2
        assert mesh.probes["nse1"].held == {answer.path.path_segments[2].id}
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body)


def test_a_hundred_connections_share_one_stream_per_neighbour():
    """Streams are per neighbour, not per connection, and end with the last connection."""

    async def body(mesh):
        for number in range(100):
            await mesh.ask(f"nsc-{number}")
        await asyncio.sleep(1)
        assert mesh.monitors["nse1"].hub.subscribers == 1
        assert mesh.monitors["mgr"].hub.subscribers == 1
        mesh.choose.crossed.add("nse1")
        mesh.cables["nse1"].cut()
        await asyncio.sleep(20)
        assert len(mesh.probes["nse2"].held) == 100
        for number in range(100):
            await mesh.close(f"nsc-{number}")
        await asyncio.sleep(LIFE)
        mesh.assert_empty()

    scenario(body)


def test_tokens_are_shown_to_their_owner_alone():
    """At a monitor, who made the connection sees its tokens, anybody else sees none."""

    async def body(mesh):
        await mesh.ask()
        for who, shown in (("nsc", True), ("spy", False)):
            stream = mesh.manager.monitor(Call(peer=Peer(spiffe_id=who)), MonitorScopeSelector())
            event = await anext(stream)
            await stream.aclose()
            [connection] = event.connections.values()
            assert all(bool(segment.token) is shown for segment in connection.path.path_segments)
            assert len(connection.path.path_segments) == 3

    scenario(body)


def test_a_manager_that_stops_ends_its_streams():
    """Whoever listens to a chain that stops is told that it is unavailable."""

    async def main():
        mesh = SmallMesh()
        async with mesh.running():
            stream = mesh.manager.monitor(Call(), MonitorScopeSelector())
            await anext(stream)
        with pytest.raises(Unavailable):
            await anext(stream)

    run(main())


FAULTS = st.tuples(
    st.sampled_from(["nsc", "mgr", "onward", "nse1", "nse2"]),
    st.sampled_from(["in", "out", "close"]),
    st.sampled_from(["refuse", "unavailable", "hang", "slow"]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "close", "expire", "cut", "mend", "cut manager", "reselect"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([0.0, 0.005, 0.02, 0.045, 1.0, 120.0]),
        st.one_of(st.none(), FAULTS),
        st.sampled_from([None, None, 0.0, 0.005, 0.02, 0.045]),
    ),
    max_size=8,
)


def fault(kind):
    async def act():
        if kind == "refuse":
            raise Refused("injected")
        if kind == "unavailable":
            raise Unavailable("injected")
        await asyncio.sleep(1000 if kind == "hang" else 3)

    return act


async def step(mesh, verb, name):
    if verb == "ask":
        await mesh.ask(name)
    elif verb == "reselect":
        await mesh.ask(name, state=State.RESELECT_REQUESTED)
    elif verb == "close":
        await mesh.close(name)
    elif verb == "expire":
        await asyncio.sleep(LIFE)
    elif verb == "cut":
        mesh.choose.crossed.add("nse1")
        mesh.cables["nse1"].cut()
    elif verb == "cut manager":
        mesh.cable.cut()
    else:
        mesh.choose.crossed.clear()
        mesh.cable.up = mesh.cables["nse1"].up = True


@settings(max_examples=150, deadline=None)
@given(STEPS, st.booleans(), st.sets(st.sampled_from(["nsc", "mgr", "onward"])))
def test_whatever_happens_nothing_is_left(steps, heal, passing):
    """After any story, and a last Close, no timer, task, stream, life or resource is left at any hop.

    Requests, refreshes, Closes, expiries, reselects, cut cables and cancelled callers in any order, with
    refusals, losses and hanging elements anywhere, and with processes of either form of a reselect.
    """

    async def body(mesh):
        tasks = []
        for verb, name, pause, trouble, cancel_after in steps:
            if trouble is not None:
                place, where, kind = trouble
                mesh.probes[place].plan.append((where, fault(kind)))
            task = asyncio.ensure_future(step(mesh, verb, name))
            tasks.append(task)
            if cancel_after is not None:
                asyncio.get_running_loop().call_later(cancel_after, task.cancel)
            await asyncio.sleep(pause)
        await asyncio.gather(*tasks, return_exceptions=True)
        for probe in mesh.probes.values():
            probe.plan.clear()
        await step(mesh, "mend", "")
        for name in ("a", "b"):
            with suppress(MeshError):
                await mesh.close(name)
        await asyncio.sleep(2 * LIFE)
        mesh.assert_empty()

    scenario(body, heal=heal, passing=passing)


def test_an_unknown_connection_is_closed_already():
    """A Close of nothing is well everywhere and makes nothing."""

    async def body(mesh):
        await mesh.close("nobody")
        await mesh.manager.close(Call(), Connection(id="nobody"))
        mesh.assert_empty()

    scenario(body)


FORMS = [(), ("nsc",), ("mgr", "onward"), ("nsc", "mgr", "onward")]


@pytest.mark.parametrize("passing", FORMS)
def test_a_reselect_between_processes_of_either_form(passing):
    """Who sends a Close first or not, in front of who passes a reselect on or ends the connection himself."""
    dead = set()

    async def alive(connection):
        return connection.network_service_endpoint_name not in dead

    async def body(mesh):
        events = []
        first = await mesh.ask()
        listener = asyncio.ensure_future(listen(mesh, events))
        await asyncio.sleep(0.1)
        dead.add("nse1")
        mesh.choose.crossed.add("nse1")
        await asyncio.sleep(0.8)
        [connection] = mesh.begins["nsc"].connections
        assert connection.network_service_endpoint_name == "nse2"
        assert [one.id for one in connection.path.path_segments][:2] == [
            one.id for one in first.path.path_segments
        ][:2]
        assert mesh.holds() == {"nsc": 1, "mgr": 1, "onward": 1, "nse1": 0, "nse2": 1}
        assert mesh.heal.healing == []
        assert [kind for kind, _ in events].count("DELETE") == 1
        await asyncio.sleep(3600)
        assert [mesh.begins["nsc"].connections[0].network_service_endpoint_name, mesh.heal.healing] == [
            "nse2",
            [],
        ]
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body, alive=alive, passing=passing)


@pytest.mark.parametrize("where", ["mgr", "nse2"])
@pytest.mark.parametrize("moment", [0.005, 0.015, 0.025, 0.035, 0.045])
@pytest.mark.parametrize("passing", FORMS)
def test_a_next_hop_that_dies_in_the_middle_of_a_reselect(passing, moment, where):
    """Whoever it is, and whenever: the client gets a wire as soon as it can, and nothing else is left."""

    async def body(mesh):
        await mesh.ask()
        mesh.choose.crossed.add("nse1")
        task = asyncio.ensure_future(mesh.begins["nsc"].life("nsc-0").rerequest(reselect=True))
        await asyncio.sleep(moment)
        (mesh.cable if where == "mgr" else mesh.cables["nse2"]).cut()
        await asyncio.wait((task,))
        mesh.choose.crossed.clear()
        mesh.cable.up = mesh.cables["nse2"].up = True
        if task.exception() is not None:
            assert mesh.begins["nsc"].connections == []
            await mesh.begins["nsc"].life("nsc-0").rerequest()
        await asyncio.sleep(LIFE)
        [connection] = mesh.begins["nsc"].connections
        assert mesh.lives()["mgr"] == mesh.lives()["onward"] == 1
        serving = connection.network_service_endpoint_name
        assert mesh.holds()[serving] == 1
        await mesh.close()
        await asyncio.sleep(2 * LIFE)
        mesh.assert_empty()

    scenario(body, heal=False, passing=passing)


@pytest.mark.parametrize("passing", FORMS)
def test_a_reselect_that_is_refused_leaves_nothing_until_one_is_not(passing):
    """Nobody may serve it: no hop holds anything, and the client has a wire as soon as somebody may."""
    dead = set()

    async def alive(connection):
        return connection.network_service_endpoint_name not in dead

    async def body(mesh):
        await mesh.ask()
        dead.add("nse1")
        mesh.choose.crossed.update(mesh.cables)
        await asyncio.sleep(10)
        async with asyncio.timeout(0.5):  # between two attempts, of which one may be under way
            while any(mesh.holds().values()):  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.01)
        assert mesh.heal.healing == ["nsc-0"]
        mesh.choose.crossed.discard("nse2")
        await asyncio.sleep(4)
        assert mesh.holds() == {"nsc": 1, "mgr": 1, "onward": 1, "nse1": 0, "nse2": 1}
        await mesh.close()
        await asyncio.sleep(1)
        mesh.assert_empty()

    scenario(body, alive=alive, passing=passing)
