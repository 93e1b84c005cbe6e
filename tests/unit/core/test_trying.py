"""Trying candidates: who is asked, in which order, for how long, and what is said when nobody grants it."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.deciding import Candidate
from nsmesh.core.element import Element, Tail, chain
from nsmesh.core.errors import NotFound, Refused, TimedOut, Unavailable, Unreachable
from nsmesh.core.peering import TARGET
from nsmesh.core.trying import try_in_order
from nsmesh.core.unreached import PASSED_OVER, Unreached
from nsmesh.core.virtual import run
from nsmesh.model.messages import Connection, NetworkServiceRequest

A, B, C = (Candidate(name, f"tcp://{name}:1") for name in "abc")


class Try(Element):
    """Tries ``order``; the life of the connection is a Begin's in front."""

    def __init__(self, *order, bound=False):
        self.order = order
        self.bound = bound
        self.silent = set()
        self.unreached = Unreached()

    async def request(self, call, request, next):
        _, answer = await try_in_order(
            call,
            request,
            self.order,
            next,
            complaint="all",
            unreached=self.unreached,
            bound=self.bound,
            silent=self.silent.__contains__,
        )
        return answer


class Hops(Tail):
    """Stands for everybody: ``down`` says what each answers, ``slow`` how long each takes."""

    def __init__(self):
        self.asked = []
        self.down = {}
        self.slow = {}

    async def request(self, call, request):
        name = call.get(TARGET)[6]
        self.asked.append(name)
        try:
            async with asyncio.timeout_at(call.deadline):
                await asyncio.sleep(self.slow.get(name, 0))
        except TimeoutError:
            raise TimedOut("too slow") from None
        if name in self.down:
            raise self.down[name]
        return request.connection

    async def close(self, call, connection):
        pass


def scenario(body, *order, **more):
    async def main():
        element, hops = Try(*order, **more), Hops()
        handler = chain(Begin(), element, end=hops)

        async def ask(name="x", limit=15.0):
            hops.asked.clear()
            await handler.request(Call().within(limit), NetworkServiceRequest(connection=Connection(id=name)))
            return "".join(hops.asked)

        async with handler.running():
            await body(ask, hops, element)

    run(main())


@pytest.mark.parametrize("error", [Unavailable("away"), TimedOut("silent"), Unreachable("tcp://a:1", "no")])
def test_who_could_not_be_reached_is_asked_last_for_a_while(error):
    """The first Request learns it, those that follow go to others at once, later ones try again."""

    async def body(ask, hops, element):
        hops.down["a"] = error
        assert await ask("1") == "ab"
        assert await ask("2") == "b"
        hops.down["b"] = hops.down["c"] = Refused("full")
        with pytest.raises(Unavailable, match=r"all: b, c: full; a: "):
            await ask("3")
        hops.down = {}
        await asyncio.sleep(PASSED_OVER + 0.1)
        assert await ask("4") == "a"

    scenario(body, A, B, C)


def test_who_refuses_was_reached():
    """A no is an answer, and what was remembered of somebody is over once he answers."""

    async def body(ask, hops, element):
        hops.down["a"] = Refused("full")
        assert await ask("1") == "ab"
        assert await ask("2") == "ab"
        hops.down["a"] = Unavailable("away")
        assert await ask("3") == "ab"
        hops.down = {"b": Unavailable("away"), "c": NotFound("gone"), "a": NotFound("gone")}
        with pytest.raises(Unavailable):
            await ask("4")
        assert hops.asked == ["b", "c", "a"]
        assert len(element.unreached) == 1
        hops.down = {}
        assert await ask("5") == "a"

    scenario(body, A, B, C)


def test_one_that_is_silent_leaves_time_for_the_others():
    """Each gets half of what is left, the last one all of it."""

    async def body(ask, hops, element):
        hops.slow = {"a": 100, "b": 100}
        begun = asyncio.get_running_loop().time()
        assert await ask("1", 16) == "abc"
        assert asyncio.get_running_loop().time() - begun == pytest.approx(12)
        hops.slow = {"a": 100, "b": 100, "c": 100}
        begun = asyncio.get_running_loop().time()
        with pytest.raises(TimedOut, match="all: c, a, b: too slow"):
            await ask("2", 16)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(16)

    scenario(body, A, B, C)


def test_a_silent_place_comes_last_of_all():
    """Behind those that were not reached lately, which may be there again, and also when it is heard late."""

    async def body(ask, hops, element):
        element.silent = {A.url}
        hops.down["b"] = Unavailable("away")
        assert await ask("1") == "bc"
        hops.down["c"] = Unavailable("away")
        assert await ask("2") == "cba"
        element.silent = {B.url, C.url}
        hops.slow = {"a": 1}
        hops.down = {"a": Unavailable("away")}
        asyncio.get_running_loop().call_later(0.5, element.silent.discard, C.url)
        assert await ask("3") == "ac"

    scenario(body, A, B, C)


def test_where_nobody_answers_a_dial_nobody_else_is_looked_for():
    """Who else is reached by the same URL comes last, now and for the next Requests; one answer ends it."""
    aa = Candidate("aa", A.url)

    async def body(ask, hops, element):
        hops.down["a"] = Unreachable(A.url, "no")
        assert await ask("1") == "ab"
        assert await ask("2") == "b"
        hops.down = {"b": Unavailable("away")}
        assert await ask("3") == "ba"
        assert await ask("4") == "a"

    scenario(body, A, aa, B)


def test_the_only_one_has_all_the_time():
    """Nobody else waits for it."""

    async def body(ask, hops, element):
        hops.slow = {"a": 14}
        assert await ask("1", 15) == "a"

    scenario(body, A)


def test_a_bound_connection_moves_only_where_nobody_answers():
    """What the first says counts, and so does its neighbour's trouble; nobody at its own address does not."""

    async def body(ask, hops, element):
        hops.down["a"] = Refused("no")
        with pytest.raises(Refused, match=r"^all: a: no$"):
            await ask("1")
        hops.down["a"] = Unavailable("the registry is away")
        with pytest.raises(Unavailable, match=r"^all: a: the registry is away$"):
            await ask("2")
        hops.down["a"] = Unreachable("tcp://behind-a:1", "nobody there")
        with pytest.raises(Unavailable, match=r"^all: a: nobody there$"):
            await ask("3")
        hops.down["a"] = Unreachable(A.url, "nobody there")
        assert await ask("4") == "ab"
        hops.slow["a"] = 14
        hops.down = {}
        assert await ask("5") == "a"

    scenario(body, A, B, bound=True)


def test_what_is_over_is_forgotten():
    """The memory does not grow with the names that pass by."""
    unreached = Unreached()
    for number in range(1000):
        unreached.note(Candidate(str(number), ""), Unavailable("away"), now=float(number))
    assert len(unreached) == PASSED_OVER
