"""Heal: the decision table, one attempt at a time, and an end when it is wanted."""

import asyncio

import pytest

from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import NotFound, Remote, Status, Unavailable
from nsmesh.core.peering import NEXT_HOP
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.heal import AT_ONCE, Heal
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    NetworkServiceRequest,
    Path,
    PathSegment,
    State,
)


class Far(Element):
    """The next hop: grants, fails or hangs, and has a monitor that says what the test wants."""

    def __init__(self):
        self.seen = []
        self.failing = 0
        self.error = Unavailable("told to")
        self.delay = 0.0
        self.busy = 0
        self.most = 0
        self.queues = []

    async def request(self, call, request, next):
        reselect = request.connection.state == State.RESELECT_REQUESTED
        self.seen.append("reselect" if reselect else "request")
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.busy -= 1
        if self.failing:
            self.failing -= 1
            raise self.error
        call.state.set(NEXT_HOP, self)
        self.say(request.connection.id, State.UP)
        return await next.request(call, request)

    async def close(self, call, connection, next):
        self.seen.append("close")
        self.say(connection.id, State.UP, ConnectionEventType.DELETE)

    async def monitor(self, call, selector):
        queue = asyncio.Queue()
        self.queues.append(queue)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.queues.remove(queue)

    def say(self, name, state, kind=ConnectionEventType.UPDATE):
        path = Path(index=1, path_segments=[PathSegment(name="nsc", id=name), PathSegment(name="m", id="m")])
        event = ConnectionEvent(type=kind, connections={"m": Connection(id="m", path=path, state=state)})
        for queue in self.queues:
            queue.put_nowait(event)

    def end(self, error):
        for queue in list(self.queues):
            queue.put_nowait(error)


class Pulse:
    """A liveness check that answers what the test sets, and counts."""

    def __init__(self, alive=True):
        self.alive = alive
        self.asked = 0

    async def __call__(self, connection):
        self.asked += 1
        if self.alive is None:
            await asyncio.sleep(1000)
        return self.alive


def ask(name="x"):
    path = Path(path_segments=[PathSegment(name="nsc", id=name)])
    return NetworkServiceRequest(connection=Connection(id=name, path=path))


def scenario(body, alive=None, carries=None):
    async def main():
        begin, heal, far = BeginClient(), Heal(alive, carries=carries, chance=lambda: 1.0), Far()
        handler = chain(begin, heal, far, clock=VirtualClock())
        async with handler.running():
            await handler.request(Call(), ask())
            await asyncio.sleep(0.05)
            await body(begin, heal, far, handler)
            for connection in begin.connections:
                await handler.close(Call(), connection)
            await asyncio.sleep(1)
            assert handler.scope.tasks == 0
            assert heal._watches == {}

    run(main())


DOWNS = [
    lambda far: far.say("x", State.DOWN),
    lambda far: far.say("x", State.UP, ConnectionEventType.DELETE),
    lambda far: far.end(Unavailable("broke")),
]


@pytest.mark.parametrize("down", DOWNS)
def test_control_down_without_a_check_reselects(down):
    """Nobody can tell whether packets go through: Close, then choose anew; once."""

    async def body(begin, heal, far, handler):
        down(far)
        await asyncio.sleep(5)
        assert far.seen == ["request", "close", "reselect"]
        assert len(far.queues) == 1

    scenario(body)


@pytest.mark.parametrize("down", DOWNS)
def test_control_down_with_packets_restores(down):
    """The same is asked for again, nothing is closed."""

    async def body(begin, heal, far, handler):
        down(far)
        await asyncio.sleep(5)
        assert far.seen == ["request", "request"]

    scenario(body, Pulse())


@pytest.mark.parametrize("alive", [False, None])
def test_control_down_without_packets_reselects(alive):
    """A check that says no, or nothing in time, means dead."""
    pulse = Pulse()

    async def body(begin, heal, far, handler):
        pulse.alive = alive
        far.say("x", State.DOWN)
        await asyncio.sleep(2)
        pulse.alive = True
        await asyncio.sleep(5)
        assert far.seen[:3] == ["request", "close", "reselect"]

    scenario(body, pulse)


def test_a_wire_without_a_carrier_that_is_told_as_down_is_not_looked_at():
    """Two say that it is dead: it is chosen anew at once; without a carrier alone nothing is done."""
    pulse, carrier = Pulse(), [True]

    async def body(begin, heal, far, handler):
        carrier[0] = False
        await asyncio.sleep(5)
        assert far.seen == ["request"]
        pulse.alive, before = None, pulse.asked
        far.say("x", State.DOWN)
        await asyncio.sleep(0.01)
        assert (far.seen, pulse.asked) == (["request", "close", "reselect"], before)
        pulse.alive = True

    scenario(body, pulse, lambda _: carrier[0])


@pytest.mark.parametrize(
    ("way", "least", "most"), [(0.001, 0.04, 0.05), (0.008, 0.06, 0.075), (0.5, 0.1, 0.11)]
)
def test_a_look_takes_as_long_as_the_wire_does(way, least, most):
    """A wire whose answers come fast is known to be dead sooner; no look is shorter than four questions."""
    pulse = Pulse()

    async def looks(connection):
        await asyncio.sleep(way if pulse.alive else 1000)
        return True

    async def body(begin, heal, far, handler):
        await asyncio.sleep(2)
        pulse.alive = False
        asked = asyncio.get_running_loop().time()
        far.say("x", State.DOWN)
        while "reselect" not in far.seen:  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.0005)
        assert least <= asyncio.get_running_loop().time() - asked <= most
        pulse.alive = True

    scenario(body, looks)


def test_an_answer_that_comes_with_the_end_of_its_time_counts():
    """A process that was busy sees both at once; the wire lives, and the same endpoint is asked for."""
    pulse = Pulse()

    async def looks(connection):
        await asyncio.sleep(0.001 if pulse.alive else 0.04)
        return True

    async def body(begin, heal, far, handler):
        await asyncio.sleep(2)
        pulse.alive = False
        far.say("x", State.DOWN)
        await asyncio.sleep(0.1)
        assert far.seen == ["request", "request"]

    scenario(body, looks)


def test_as_many_looks_in_a_row_as_wanted_have_to_find_nothing():
    """One that finds something begins the count anew; the last of a row makes it choose anew, at once."""
    found = [False, False, True, False, False, False]
    asked = []

    async def looks(connection):
        asked.append(asyncio.get_running_loop().time())
        return found.pop(0) if found else True

    async def main():
        heal, far = Heal(looks, count=3, interval=0.2, chance=lambda: 1.0), Far()
        handler = chain(BeginClient(), heal, far, clock=VirtualClock())
        async with handler.running():
            await handler.request(Call(), ask())
            begun = asyncio.get_running_loop().time()
            while "reselect" not in far.seen:  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.01)
            assert asked[5] - begun == pytest.approx(1.2)
            assert asyncio.get_running_loop().time() - begun < 1.3

    run(main())


def test_dead_packets_alone_reselect():
    """With the control plane well, what the check says is enough."""
    pulse = Pulse()

    async def body(begin, heal, far, handler):
        await asyncio.sleep(10)
        assert pulse.asked == pytest.approx(50, abs=3)
        assert far.seen == ["request"]
        pulse.alive = False
        await asyncio.sleep(0.3)
        pulse.alive = True
        await asyncio.sleep(5)
        assert far.seen == ["request", "close", "reselect"]

    scenario(body, pulse)


def test_a_cancelled_stream_means_nothing():
    """No attempt is made."""

    async def body(begin, heal, far, handler):
        far.end(Remote(Status.CANCELLED, "x"))
        await asyncio.sleep(5)
        assert far.seen == ["request"]

    scenario(body)


def test_a_refresh_that_is_requested_is_sent_at_once():
    """REFRESH_REQUESTED is no trouble: one Request, no Close."""

    async def body(begin, heal, far, handler):
        far.say("x", State.REFRESH_REQUESTED)
        await asyncio.sleep(5)
        assert far.seen == ["request", "request"]

    scenario(body)


def test_attempts_are_repeated_with_growing_pauses():
    """The first one at once, then with pauses of 0.2 s that grow to 2 s, until one succeeds."""

    async def body(begin, heal, far, handler):
        far.failing = 30
        far.say("x", State.DOWN)
        await asyncio.sleep(0.05)
        assert far.seen.count("reselect") == 1
        await asyncio.sleep(40)
        assert 18 <= far.seen.count("reselect") <= 27
        await asyncio.sleep(40)
        assert heal.healing == []
        assert far.seen.count("reselect") == 31

    scenario(body)


def test_a_wire_that_dies_while_it_is_asked_for_again_is_reselected_at_once():
    """The same is asked for in vain, nothing answers any more: no pause before somebody else is asked."""
    pulse = Pulse()

    async def body(begin, heal, far, handler):
        far.failing, far.delay = 1, 0.3
        far.say("x", State.DOWN)
        await asyncio.sleep(0.1)
        pulse.alive = False
        far.delay = 0
        await asyncio.sleep(0.25)
        assert far.seen == ["request", "request", "close", "reselect"]
        pulse.alive = True

    scenario(body, pulse)


def test_a_late_echo_ends_no_wire_whose_control_plane_is_away():
    """Found alive once, each further look has the time of a probe: nothing is closed for one slow answer."""

    async def looks(connection):
        await asyncio.sleep(0.001 if len(far.seen) < 3 else 0.5)
        return True

    far = Far()

    async def main():
        heal = Heal(looks, chance=lambda: 1.0)
        handler = chain(BeginClient(), heal, far, clock=VirtualClock())
        async with handler.running():
            await handler.request(Call(), ask())
            await asyncio.sleep(1)
            far.failing = 10
            far.say("x", State.DOWN)
            await asyncio.sleep(30)
            assert heal.healing == []
            assert far.seen == ["request"] * 12

    run(main())


@pytest.mark.parametrize("when", [0.005, 0.1, 0.25])
def test_a_wire_that_was_alive_and_loses_its_carrier_is_not_waited_for(when):
    """A namespace answers a little longer than its process lives: the look after that is brief."""
    pulse, carrier = Pulse(), [True]

    async def body(begin, heal, far, handler):
        far.failing = 100
        far.say("x", State.DOWN)
        await asyncio.sleep(when)
        assert "reselect" not in far.seen
        carrier[0] = False
        pulse.alive = None
        far.failing = 0
        await asyncio.sleep(2 * when + 0.2)  # the field's own limit of a look is a second
        assert far.seen[-2:] == ["close", "reselect"]

    scenario(body, pulse, lambda _: carrier[0])


def test_a_wire_that_was_alive_is_left_while_its_packets_come_back():
    """Without a carrier, but with packets: nobody could be asked, and nothing is closed."""
    carrier = [True]

    async def body(begin, heal, far, handler):
        far.failing = 10
        far.say("x", State.DOWN)
        await asyncio.sleep(0.05)
        carrier[0] = False
        await asyncio.sleep(30)
        assert heal.healing == []
        assert far.seen == ["request"] * 12

    scenario(body, Pulse(), lambda _: carrier[0])


def test_trouble_during_an_attempt_is_not_forgotten():
    """What goes down again right behind the answer that healed it is healed again."""

    async def body(begin, heal, far, handler):
        far.delay = 1.0
        far.say("x", State.DOWN)
        await asyncio.sleep(0.5)
        asyncio.get_running_loop().call_later(0.5001, lambda: far.say("x", State.DOWN))
        await asyncio.sleep(10)
        assert far.seen.count("request") >= 3
        assert heal.healing == []

    scenario(body, Pulse())


def test_news_that_it_is_up_again_ends_the_healing():
    """A hop further on that recovered by itself needs no more attempts."""

    async def body(begin, heal, far, handler):
        far.failing = 5
        far.say("x", State.DOWN)
        await asyncio.sleep(0.3)
        tries = len(far.seen)
        far.say("x", State.UP)
        await asyncio.sleep(0.05)
        assert heal.healing == []
        await asyncio.sleep(10)
        assert len(far.seen) == tries

    scenario(body, Pulse())


def test_a_close_ends_it_at_once():
    """Between two attempts nothing is left behind a Close."""

    async def body(begin, heal, far, handler):
        far.failing = 1000
        far.say("x", State.DOWN)
        await asyncio.sleep(20)
        await handler.close(Call(), Connection(id="x"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert handler.scope.tasks == 0
        assert heal._watches == {}

    scenario(body)


def test_a_close_during_an_attempt_ends_it():
    """The Close waits for its turn, then nothing more is tried."""

    async def body(begin, heal, far, handler):
        far.failing, far.delay = 1000, 3.0
        far.say("x", State.DOWN)
        await asyncio.sleep(1)
        await handler.close(Call(), Connection(id="x"))
        tries = len(far.seen)
        await asyncio.sleep(20)
        assert len(far.seen) == tries

    scenario(body)


def test_a_users_failing_request_does_not_stop_it():
    """While a reselect goes on, a Request of the user that fails too changes nothing."""

    async def body(begin, heal, far, handler):
        far.failing = 1000
        far.say("x", State.DOWN)
        await asyncio.sleep(20)
        with pytest.raises(Unavailable):
            await handler.request(Call(), ask())
        assert heal.healing == ["x"]
        far.failing = 0
        await asyncio.sleep(5)
        assert [connection.id for connection in begin.connections] == ["x"]

    scenario(body)


def test_a_users_request_that_succeeds_ends_it():
    """Then there is nothing more to heal."""

    async def body(begin, heal, far, handler):
        far.failing = 1000
        far.say("x", State.DOWN)
        await asyncio.sleep(20.3)
        far.failing = 0
        await handler.request(Call(), ask())
        assert heal.healing == []

    scenario(body)


def test_storms_are_bounded():
    """A neighbour that takes all connections down meets a bounded number of attempts at a time."""

    async def body(begin, heal, far, handler):
        for number in range(3 * AT_ONCE):
            await handler.request(Call(), ask(f"c{number}"))
        far.most, far.delay = 0, 1.0
        far.end(Unavailable("broke"))
        await asyncio.sleep(60)
        assert far.most == AT_ONCE
        assert heal.healing == []
        assert len(far.queues) == 1
        far.delay = 0.0

    scenario(body)


class Absent(NotFound):
    """What a forwarder answers whose registry does not list the endpoint."""

    def __init__(self):
        super().__init__("network service endpoint nse not found")


def lost(seconds, error, *, expected):
    """Let the next hop say that the endpoint is away for so long, while its packets go on."""
    pulse = Pulse()

    async def body(begin, heal, far, handler):
        (connection,) = begin.connections
        connection.network_service_endpoint_name = "nse"
        for watch in heal._watches.values():
            watch.connection.network_service_endpoint_name = "nse"
        far.error = error
        far.failing = 1000
        far.say("x", State.DOWN)
        await asyncio.sleep(seconds)
        far.failing = 0
        await asyncio.sleep(10)
        assert ("reselect" in far.seen) == expected
        assert ("close" in far.seen) == expected
        assert heal.healing == []

    scenario(body, pulse)


def test_an_endpoint_that_stays_unknown_is_given_up():
    """Its packets may go on for ever: what made the wire is still there, and nobody answers for it."""
    lost(75, Absent(), expected=True)
    lost(75, Remote(Status.UNKNOWN, "network service endpoint nse not found: all have failed"), expected=True)


def test_an_endpoint_that_comes_back_is_not_given_up():
    """A manager that restarts does not know it for a moment, one that was stopped for half a minute."""
    lost(5, Absent(), expected=False)
    lost(45, Absent(), expected=False)


def test_other_troubles_leave_a_living_wire_alone():
    """However long they last: no forwarder, a registry that is away, an endpoint that refuses."""
    lost(60, NotFound("no candidates found for a wire: no forwarder is registered"), expected=False)
    lost(60, Unavailable("the registry is away"), expected=False)


def test_what_a_look_at_the_packets_found_is_not_looked_for_again():
    """The first attempt comes at once: not after a second look that takes as long as it may."""
    pulse = Pulse()

    async def body(begin, heal, far, handler):
        await asyncio.sleep(1)
        pulse.alive, asked = False, pulse.asked
        await asyncio.sleep(0.2)
        assert far.seen == ["request", "close", "reselect"]
        assert pulse.asked == asked + 1
        pulse.alive = True

    scenario(body, pulse)


def test_requests_to_refresh_are_answered_one_at_a_time():
    """Many of them, from many hops, while one is under way: it will do for all."""

    async def body(begin, heal, far, handler):
        far.delay = 1.0
        for _ in range(20):
            far.say("x", State.REFRESH_REQUESTED)
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        assert far.seen == ["request", "request"]

    scenario(body)
