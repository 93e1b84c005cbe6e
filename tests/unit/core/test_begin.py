"""Begin: the contract that its module's text makes, point by point, and under random orders of events."""

import asyncio
import gc
import weakref
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsmesh.core import begin as begin_module
from nsmesh.core.begin import Begin
from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Key, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Invalid, Refused, TimedOut
from nsmesh.core.life import LIFE, OWN, REACHED
from nsmesh.core.virtual import run
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkService, NetworkServiceRequest, State

MARK: Key[int] = Key("mark")


class Far(Element):
    """The world behind: takes time, fails when told, and notes what it holds and what it saw."""

    def __init__(self):
        self.seen = []
        self.held = set()
        self.busy = Counter()
        self.delay = 1.0
        self.failing = 0
        self.failing_close = 0
        self.states = []
        self.calls = []

    async def _enter(self, key):
        assert self.busy[key] == 0, "two events of one connection at a time"
        self.busy[key] += 1
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.busy[key] -= 1

    async def request(self, call, request, next):
        key = request.connection.id
        self.calls.append(call)
        self.states.append(call.state)
        self.seen.append(("request", key, request.connection.network_service))
        self.held.add(key)
        await self._enter(key)
        if self.failing:
            self.failing -= 1
            raise Refused("told to fail")
        return await next.request(call, request)

    async def close(self, call, connection, next):
        key = connection.id
        self.calls.append(call)
        self.seen.append(("close", key, connection.network_service))
        await self._enter(key)
        self.held.discard(key)
        if self.failing_close:
            self.failing_close -= 1
            raise Refused("told to fail to close")
        await next.close(call, connection)


def ask(name="x", service="s", **more):
    return NetworkServiceRequest(connection=Connection(id=name, network_service=service, **more))


def verbs(far):
    return [seen[0] for seen in far.seen]


def scenario(body, begin=None):
    """Run ``body(begin, far, handler)`` on a running chain; nothing may be left of it."""

    async def main():
        first, far = begin or Begin(), Far()
        handler = chain(first, far)
        async with handler.running():
            await body(first, far, handler)
            await asyncio.sleep(100)
            assert handler.scope.tasks == 0
        assert len(first.turns) == 0

    run(main())


def test_an_empty_id_is_refused():
    """A Request needs an id to be serialised by."""

    async def body(begin, far, handler):
        with pytest.raises(Invalid):
            await handler.request(Call(), ask(""))
        assert far.seen == []

    scenario(body)


def test_events_of_one_connection_come_in_their_order_and_others_do_not_wait():
    """One id is served one after another, in order of arrival; another id runs beside it."""

    async def body(begin, far, handler):
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            handler.request(Call(), ask(service="1")),
            handler.request(Call(), ask(service="2")),
            handler.close(Call(), Connection(id="x")),
            handler.request(Call(), ask(service="3")),
            handler.request(Call(), ask("y")),
        )
        mine = [seen for seen in far.seen if seen[1] == "x"]
        assert mine == [
            ("request", "x", "1"),
            ("request", "x", "2"),
            ("close", "x", "2"),
            ("request", "x", "3"),
        ]
        assert loop.time() == 4.0

    scenario(body)


def test_order_holds_when_the_first_one_fails():
    """A Close that came behind two Requests ends what the second one made, also when the first one failed."""

    async def body(begin, far, handler):
        far.failing = 1
        first = asyncio.ensure_future(handler.request(Call(), ask(service="1")))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(handler.request(Call(), ask(service="2")))
        await asyncio.sleep(0.1)
        third = asyncio.ensure_future(handler.close(Call(), Connection(id="x")))
        with pytest.raises(Refused):
            await first
        await second
        await third
        assert verbs(far) == ["request", "close", "request", "close"]
        assert begin.connections == []

    scenario(body)


def test_state_belongs_to_a_life():
    """All events of one life share one state; the next life has a new one; LIFE is in it."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        far.states[0].set(MARK, 1)
        await handler.request(Call(), ask())
        assert far.states[1] is far.states[0]
        assert far.states[0].get(LIFE) is begin.life("x")
        await handler.close(Call(), Connection(id="x"))
        await handler.request(Call(), ask())
        assert far.states[2] is not far.states[0]
        assert far.states[2].get(MARK) is None

    scenario(body)


def test_what_a_life_held_goes_with_it():
    """Nothing of a closed connection waits for the garbage collector."""

    class Held:
        pass

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        held = Held()
        far.states[0].set(Key("held"), held)
        gone = weakref.ref(held)
        del held
        await handler.close(Call(), Connection(id="x"))
        far.states.clear()
        far.calls.clear()
        assert gone() is None

    gc.disable()
    try:
        scenario(body)
    finally:
        gc.enable()


def test_close_gets_what_was_returned_last():
    """Whatever the caller wrote, elements see the stored connection; an unknown id does not reach them."""

    async def body(begin, far, handler):
        await handler.close(Call(), Connection(id="nobody"))
        assert far.seen == []
        await handler.request(Call(), ask(service="real"))
        await handler.close(Call(), Connection(id="x", network_service="forged"))
        assert far.seen[-1] == ("close", "x", "real")
        await handler.close(Call(), Connection(id="x"))
        assert len(far.seen) == 2

    scenario(body)


def test_a_failed_first_request_is_undone_and_forgotten():
    """The chain gets one Close with the furthest answer, marked as our own, and nothing is kept."""

    async def body(begin, far, handler):
        far.failing = 1
        with pytest.raises(Refused):
            await handler.request(Call(peer=Peer(uid=5)), ask())
        assert verbs(far) == ["request", "close"]
        assert far.calls[1].get(OWN)
        assert far.calls[1].peer.uid == 5
        assert begin.life("x") is None
        assert far.held == set()

    scenario(body)


def test_the_undo_gets_the_furthest_answer():
    """What an element put under REACHED is what the undo closes."""

    class Reach(Element):
        async def request(self, call, request, next):
            call.state.set(REACHED, Connection(id="x", network_service="reached"))
            raise Refused("behind it")

    async def main():
        far = Far()
        handler = chain(Begin(), far, Reach())
        async with handler.running():
            with pytest.raises(Refused):
                await handler.request(Call(), ask())
        assert far.seen[-1] == ("close", "x", "reached")

    run(main())


def test_a_failing_undo_is_a_note_on_the_first_error():
    """The caller gets the reason of the failure, and reads that the undo failed as well."""

    async def body(begin, far, handler):
        far.failing = far.failing_close = 1
        with pytest.raises(Refused, match="told to fail") as caught:
            await handler.request(Call(), ask())
        assert "undo failed" in caught.value.__notes__[0]
        assert begin.life("x") is None

    scenario(body)


def test_a_failed_refresh_changes_nothing():
    """The old connection, its life and its state go on."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask(service="1"))
        life = begin.life("x")
        far.failing = 1
        with pytest.raises(Refused):
            await handler.request(Call(), ask(service="2"))
        assert begin.life("x") is life
        assert life.connection.network_service == "1"
        assert verbs(far) == ["request", "request"]

    scenario(body)


def test_cancelling_a_first_request_undoes_it():
    """However often the caller is cancelled, the undo is done before it sees its end."""

    async def body(begin, far, handler):
        task = asyncio.ensure_future(handler.request(Call(), ask()))
        for _ in range(4):
            await asyncio.sleep(0.4)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert verbs(far) == ["request", "close"]
        assert far.held == set()
        assert begin.life("x") is None

    scenario(body)


def test_cancelling_a_close_does_not_stop_it():
    """A Close that has begun goes on; one that waited for its turn has not begun."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        task = asyncio.ensure_future(handler.close(Call(), Connection(id="x")))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert far.held == set()
        assert begin.life("x") is None

    scenario(body)


def test_a_failing_close_ends_the_life_all_the_same():
    """The caller hears of it; the connection is gone here."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        far.failing_close = 1
        with pytest.raises(Refused):
            await handler.close(Call(), Connection(id="x"))
        assert begin.life("x") is None

    scenario(body)


class Keeper(Element):
    """Keeps something of each connection until its Close, or until it is told to forget it."""

    def __init__(self):
        self.kept = {}

    async def request(self, call, request, next):
        self.kept[request.connection.id] = call.state
        return await next.request(call, request)

    async def close(self, call, connection, next):
        del self.kept[connection.id]
        await next.close(call, connection)

    async def forget(self, connection_id, state):
        if connection_id in self.kept:
            assert self.kept.pop(connection_id) is state


def test_whom_a_failing_close_does_not_reach_is_told_to_forget():
    """An element in front that fails is no reason for one behind it to keep what it has."""

    async def main():
        far, keeper = Far(), Keeper()
        far.failing_close = 1
        async with chain(Begin(), far, keeper, name="keeps").running() as made:
            await made.request(Call(), ask())
            assert list(keeper.kept) == ["x"]
            with pytest.raises(Refused):
                await made.close(Call(), Connection(id="x"))
            assert keeper.kept == {}

    run(main())


def test_a_close_that_hangs_is_given_up():
    """After its budget the caller gets an error and the turn is free again."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        far.delay = 1000
        with pytest.raises(TimedOut, match="not finished"):
            await handler.close(Call(), Connection(id="x"))
        far.delay = 1
        await handler.request(Call(), ask())

    scenario(body)


def test_what_comes_back_is_up_and_the_callers():
    """The state is UP, and changing the answer changes nothing that is kept."""

    async def body(begin, far, handler):
        answer = await handler.request(Call(), ask(state=State.DOWN))
        assert answer.state == State.UP
        answer.network_service = "changed"
        assert begin.connections[0].network_service == "s"

    scenario(body)


def test_rerequest_sends_what_was_returned_last():
    """Preferences are the Request's, the connection is the answer's; deadline and values do not stay."""

    async def body(begin, far, handler):
        request = ask()
        request.mechanism_preferences.add(type="KERNEL")
        await handler.request(Call(peer=Peer(uid=1)).put(MARK, 3), request)
        again = await begin.life("x").rerequest()
        assert again.id == "x"
        call = far.calls[-1]
        assert call.get(MARK) is None
        assert call.get(OWN)
        assert call.peer.uid == 1
        assert call.deadline is not None

    scenario(body)


def test_rerequest_and_close_of_an_ended_life_do_nothing():
    """Who kept a life too long harms nobody, also not its successor of the same id."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        life = begin.life("x")
        await handler.close(Call(), Connection(id="x"))
        assert life.connection is None
        await handler.request(Call(), ask())
        before = len(far.seen)
        assert await life.rerequest() is None
        assert await life.rerequest(reselect=True) is None
        await life.close()
        assert len(far.seen) == before

    scenario(body)


def test_a_rerequest_that_hangs_is_given_up():
    """After its budget it fails as timed out, and the connection is kept."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        far.delay = 1000
        with pytest.raises(TimedOut, match="re-request"):
            await begin.life("x").rerequest()
        far.delay = 1
        assert begin.life("x").connection is not None

    scenario(body)


def test_reselect_is_an_end_and_a_new_beginning():
    """The chain gets a Close, then a Request without endpoint and mechanism, with a new state."""

    class Choose(Element):
        async def request(self, call, request, next):
            self.wanted = Connection()
            self.wanted.CopyFrom(request.connection)
            answer = await next.request(call, request)
            answer.network_service_endpoint_name = "nse"
            answer.mechanism.type = "KERNEL"
            return answer

    async def main():
        far, choose, first = Far(), Choose(), Begin()
        handler = chain(first, far, choose)
        async with handler.running():
            await handler.request(Call(), ask())
            await first.life("x").rerequest()
            assert choose.wanted.network_service_endpoint_name == "nse"
            answer = await first.life("x").rerequest(reselect=True)
            assert choose.wanted.network_service_endpoint_name == ""
            assert not choose.wanted.HasField("mechanism")
            assert choose.wanted.state == State.RESELECT_REQUESTED
            assert answer.state == State.UP
            assert answer.network_service_endpoint_name == "nse"
            assert verbs(far) == ["request", "request", "close", "request"]
            assert far.states[2] is not far.states[1]

    run(main())


class Grants(Element):
    """An end that fills in what the field fills in, and notes what it was asked for."""

    def __init__(self, payload="IP"):
        self.payload = payload
        self.asked = []

    async def request(self, call, request, next):
        self.asked.append(copy_of(request.connection))
        connection = copy_of(request.connection)
        connection.payload = connection.payload or self.payload
        connection.labels["nodeName"] = "n1"
        if not connection.context.ip_context.src_ip_addrs:
            connection.context.ip_context.src_ip_addrs.append(f"10.0.0.{len(self.asked)}/32")
        return connection


def test_a_client_reselects_with_the_payload_that_was_wished():
    """The payload of the service may have changed since; one that the caller named is asked for again."""

    async def main():
        for wished, then in (("", "ETHERNET"), ("IP", "IP")):
            begin, far = BeginClient(), Grants()
            handler = chain(begin, far)
            async with handler.running():
                first = ask()
                first.connection.payload = wished
                assert (await handler.request(Call(), first)).payload == "IP"
                await begin.life("x").rerequest()
                far.payload = "ETHERNET"
                again = await begin.life("x").rerequest(reselect=True)
                assert far.asked[-1].payload == wished
                assert again.payload == then
                assert again.labels["nodeName"] == "n1"

    run(main())


def test_what_a_caller_repeats_is_no_change_however_often_it_was_refreshed():
    """The first Request again, after refreshes and after itself: the context that was answered stays."""

    async def main():
        begin, far = BeginClient(), Grants()
        handler = chain(begin, far)
        async with handler.running():
            answer = await handler.request(Call(), ask())
            for _ in range(3):
                await begin.life("x").rerequest()
                assert (await handler.request(Call(), ask())).context == answer.context
            changed = ask()
            changed.connection.labels["app"] = "x"
            assert (await handler.request(Call(), changed)).labels == {"app": "x", "nodeName": "n1"}
            await begin.life("x").rerequest()
            assert (await handler.request(Call(), changed)).labels == {"app": "x", "nodeName": "n1"}
            assert begin.connections[0].context == answer.context

    run(main())


def test_whether_somebody_asks_again_is_known():
    """From the moment it waits for its turn until it is answered, also when it fails."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        life = begin.life("x")
        assert not life.asking
        far.failing = 1
        first, second = (asyncio.ensure_future(life.rerequest()) for _ in range(2))
        await asyncio.sleep(0.5)
        assert life.asking
        with pytest.raises(Refused):
            await first
        assert life.asking
        await second
        assert not life.asking

    scenario(body)


def test_a_failed_reselect_can_be_tried_again():
    """The life goes on without a connection, until an attempt succeeds."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        life = begin.life("x")
        far.failing = 2
        for _ in range(2):
            with pytest.raises(Refused):
                await life.rerequest(reselect=True)
            assert begin.life("x") is life
            assert life.connection is None
            assert far.held == set()
        assert (await life.rerequest()).id == "x"
        assert life.connection is not None

    scenario(body)


def test_a_close_ends_a_life_between_two_connections():
    """A Close that comes when a reselect has failed reaches the chain and ends the life."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        life = begin.life("x")
        far.failing = 1
        with pytest.raises(Refused):
            await life.rerequest(reselect=True)
        await handler.close(Call(), Connection(id="x"))
        assert verbs(far)[-1] == "close"
        assert begin.life("x") is None
        assert await life.rerequest() is None

    scenario(body)


def test_a_request_to_reselect_closes_first():
    """A server that gets RESELECT_REQUESTED closes its old chain, whatever that says, then serves."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        far.failing_close = 1
        answer = await handler.request(Call(), ask(state=State.RESELECT_REQUESTED))
        assert verbs(far) == ["request", "close", "request"]
        assert answer.state == State.UP
        far.failing = 1
        with pytest.raises(Refused):
            await handler.request(Call(), ask(state=State.RESELECT_REQUESTED))
        assert begin.life("x") is None

    scenario(body)


@pytest.mark.parametrize("passes", [False, True])
def test_cancelling_a_reselect_leaves_nothing_half(passes):
    """At whatever moment a reselecting Request is cancelled, either all of it is there, or nothing."""

    async def body(begin, far, handler):
        for moment in (0.0, 0.5, 1.0, 1.5, 2.5):
            await handler.request(Call(), ask())
            task = asyncio.ensure_future(handler.request(Call(), ask(state=State.RESELECT_REQUESTED)))
            await asyncio.sleep(moment)
            task.cancel()
            await asyncio.wait((task,))
            await asyncio.sleep(5)
            assert (begin.life("x") is not None) == ("x" in far.held)
            await handler.close(Call(), Connection(id="x"))
            assert far.held == set()

    scenario(body, Begin(passes_reselects=passes))


def test_a_foreign_id_in_the_answer_leaks_no_life():
    """A life is known by the id it was asked for under, whatever an answer says."""

    class Rename(Element):
        async def request(self, call, request, next):
            answer = await next.request(call, request)
            answer.id = "other"
            return answer

    async def main():
        first = Begin()
        handler = chain(first, Rename())
        async with handler.running():
            await handler.request(Call(), ask())
            await handler.close(Call(), Connection(id="x"))
            assert first.life("x") is None

    run(main())


def test_stopping_the_chain_ends_what_is_under_way():
    """When the chain stops in the middle of a Close, nobody waits for ever."""

    async def main():
        first, far = Begin(), Far()
        far.delay = 10
        handler = chain(first, far)
        async with handler.running():
            await handler.request(Call(), ask())
            task = asyncio.ensure_future(handler.close(Call(), Connection(id="x")))
            await asyncio.sleep(1)
        with pytest.raises(Exception, match="stopped before"):
            await task
        assert handler.scope.tasks == 0

    run(main())


def test_entries_are_serialised_by_name():
    """Register and Unregister of one name come one after another; other names do not wait."""

    class Slow(Element):
        def __init__(self):
            self.order = []

        async def register(self, call, entry, next):
            self.order.append(f"+{entry.name}")
            await asyncio.sleep(1)
            return await next.register(call, entry)

        async def unregister(self, call, entry, next):
            self.order.append(f"-{entry.name}")
            await asyncio.sleep(1)

    async def main():
        slow = Slow()
        handler = chain(Begin(), slow)
        await asyncio.gather(
            handler.register(Call(), NetworkService(name="a")),
            handler.unregister(Call(), NetworkService(name="a")),
            handler.register(Call(), NetworkService(name="b")),
        )
        assert slow.order == ["+a", "+b", "-a"]
        assert asyncio.get_running_loop().time() == 2

    run(main())


def test_a_client_merges_its_changes():
    """A client's Begin sends a repeated Request with what was answered, and with what the user changed."""

    class Choose(Element):
        async def request(self, call, request, next):
            self.seen = Connection()
            self.seen.CopyFrom(request.connection)
            request.connection.network_service_endpoint_name = "nse"
            return await next.request(call, request)

    async def main():
        choose = Choose()
        handler = chain(BeginClient(), choose)
        async with handler.running():
            await handler.request(Call(), ask())
            await handler.request(Call(), ask(labels={"a": "b"}))
        assert choose.seen.network_service_endpoint_name == "nse"
        assert dict(choose.seen.labels) == {"a": "b"}

    run(main())


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["request", "reselect", "close", "rerequest", "again", "drop"]),
        st.sampled_from(["x", "y"]),
        st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        st.booleans(),
        st.sampled_from([None, 0.0, 0.5, 1.5]),
    ),
    max_size=12,
)


async def act(verb, name, begin, handler):
    life = begin.life(name)
    if verb == "request":
        await handler.request(Call(), ask(name))
    elif verb == "reselect":
        await handler.request(Call(), ask(name, state=State.RESELECT_REQUESTED))
    elif verb == "close":
        await handler.close(Call(), Connection(id=name))
    elif life is not None and verb == "drop":
        await life.close()
    elif life is not None:
        await life.rerequest(reselect=verb == "again")


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.booleans())
def test_any_order_of_events_leaves_nothing_behind(events, passes):
    """The chain holds exactly the connections that are alive; after closing them, nothing is left.

    In any order of Request, reselect, Close and re-request, with failures and cancellations at any time.
    """

    async def body(begin, far, handler):
        tasks = []
        for verb, name, pause, fails, cancel_after in events:
            far.failing += fails
            task = asyncio.ensure_future(act(verb, name, begin, handler))
            tasks.append(task)
            if cancel_after is not None:
                asyncio.get_running_loop().call_later(cancel_after, task.cancel)
            await asyncio.sleep(pause)
        await asyncio.gather(*tasks, return_exceptions=True)
        alive = {connection.id for connection in begin.connections}
        assert far.held == alive
        for name in ("x", "y"):
            await handler.close(Call(), Connection(id=name))
        assert far.held == set()
        assert begin.life("x") is None
        assert begin.life("y") is None
        assert sum(far.busy.values()) == 0

    scenario(body, Begin(passes_reselects=passes))


def test_the_budget_is_that_of_the_field():
    """Fifteen seconds, the norm of the field for one call."""
    assert begin_module.BUDGET == 15.0
