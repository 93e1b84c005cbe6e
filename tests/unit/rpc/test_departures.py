"""Departures: what was queued in a turn of the loop leaves at its end, in one write for each connection."""

import asyncio

from nsmesh.rpc.departures import Departures, departures_of


async def turns(begun):
    """Run ``begun`` as the reader of a connection; return in which turn of the loop each thing happened."""
    loop, found, turn = asyncio.get_running_loop(), [], 0
    begun(loop, lambda what: found.append((turn, what)))
    for turn in range(1, 5):  # noqa: B007 - what is found looks at it
        await asyncio.sleep(0)
    return found


def test_requests_leave_in_the_turn_in_which_they_are_made():
    """What a call asks of others goes out behind the first steps of all calls that the same bytes began."""

    def reader(loop, saw):
        departures = Departures()

        def step(name):
            saw(f"step {name}")
            departures.add(loop, lambda: saw(f"flush {name}"))

        loop.call_soon(step, "a")
        loop.call_soon(step, "b")
        departures.expect(loop)

    assert asyncio.run(turns(reader)) == [(1, "step a"), (1, "step b"), (1, "flush a"), (1, "flush b")]


def test_two_readers_in_one_turn_depart_together():
    """Where a second reader begins calls behind the end of the turn, the next end does for both."""

    def reader(loop, saw):
        departures = Departures()
        for name in ("a", "b"):
            loop.call_soon(departures.add, loop, lambda name=name: saw(f"flush {name}"))
            departures.expect(loop)

    assert asyncio.run(turns(reader)) == [(2, "flush a"), (2, "flush b")]


def test_what_nobody_expected_leaves_in_the_next_turn():
    """Who asks of its own accord needs no reader; a second time begins anew."""

    def reader(loop, saw):
        departures = Departures()
        departures.add(loop, lambda: saw("flush"))
        loop.call_later(0, departures.add, loop, lambda: saw("again"))

    assert [what for _, what in asyncio.run(turns(reader))] == ["flush", "again"]


def test_one_that_fails_holds_no_other_up():
    """A fault of one connection is said, and the others are flushed."""

    def reader(loop, saw):
        departures = Departures()

        def fail():
            raise RuntimeError("a fault")

        departures.add(loop, fail)
        departures.add(loop, lambda: saw("flush"))

    assert [what for _, what in asyncio.run(turns(reader))] == ["flush"]


def test_each_loop_has_its_own():
    """Loops of several threads do not meet, and one loop has one."""

    async def mine():
        loop = asyncio.get_running_loop()
        assert departures_of(loop) is departures_of(loop)
        return departures_of(loop)

    assert asyncio.run(mine()) is not asyncio.run(mine())
