"""Dial: what a next hop did not answer is closed there, for as long as a token may live."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from nsmesh.core.audit import unclosed
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import chain
from nsmesh.core.errors import MeshError, Refused, TimedOut, Unavailable
from nsmesh.core.farewell import ABSENT
from nsmesh.core.metrics import DECLARED
from nsmesh.core.peering import TARGET, TARGET_NAME, Dialled
from nsmesh.core.unclosed import ENDS, LONGEST
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.dial import Dial
from nsmesh.elements.update_path import UpdatePath
from nsmesh.journal.memory import MemoryJournal
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment

PATH = Path(index=0, path_segments=[PathSegment(name="c", id="c-0")])


class Far:
    """A next hop that can be away: what it holds, and the Closes that it saw."""

    def __init__(self, url):
        self.peer = Peer(spiffe_id=url)
        self.held = set()
        self.closes = 0
        self.tries = 0
        self.away = False
        self.silent = False
        self.error = None
        self.delay = 0.0

    async def request(self, call, request):
        await asyncio.sleep(self.delay)
        self.held.add(request.connection.id)
        if self.error is not None:
            raise self.error
        return request.connection

    async def close(self, call, connection):
        self.tries += 1
        if self.silent:
            await asyncio.sleep(call.remaining())
            raise TimedOut("no answer")
        if self.error is not None:
            raise self.error
        await asyncio.sleep(self.delay)
        self.closes += 1
        self.held.discard(connection.id)


class Book:
    """Next hops by URL."""

    def __init__(self):
        self.far = {url: Far(url) for url in "ab"}
        self.kept = {}
        self.journal = None
        self.now_at = {}

    async def get(self, url):
        far = self.far.get(url)
        if far is None or far.away:
            if far is not None:
                far.tries += 1
            raise Unavailable(f"nobody listens at {url}")
        return far

    async def successor(self, name):
        return self.now_at.get(name, "")

    @asynccontextmanager
    async def process(self):
        journal = MemoryJournal(self.kept)
        dial = Dial(self, journal=journal, successor=self.successor)
        made = chain(Begin(journal), dial, end=Dialled(), name="test", clock=VirtualClock())
        async with made.running():
            self.journal = journal
            yield made


def ask(name="c-0", target="a", deadline=15.0):
    return Call(values={TARGET: target}).within(deadline), NetworkServiceRequest(
        connection=Connection(id=name, path=PATH)
    )


def test_a_close_that_was_not_answered_is_made_again_until_it_is():
    """The caller hears at once that nobody is there; whoever comes back is told within seconds."""

    async def main():
        book = Book()
        far = book.far["a"]
        async with book.process() as made:
            answer = await made.request(*ask())
            far.away = True
            await made.close(Call(), answer)
            assert [(one.connection, one.at) for one in unclosed([made])] == [("c-0", "a")]
            assert [(one.labels, one.value) for one in await DECLARED["nsm_dial_unclosed"].samples()] == [
                ({"chain": "test"}, 1)
            ]
            await asyncio.sleep(100)
            assert far.tries <= 100 / LONGEST + 10, "the dead are asked ever more seldom"
            far.away = False
            await asyncio.sleep(LONGEST)
            assert far.held == set()
            assert unclosed([made]) == []
            assert made.scope.tasks == 0

    run(main())


def test_who_has_died_is_not_dialled_for_a_close_and_told_when_it_is_back():
    """A Close of the dead comes back at once, without a try; it is owed to whoever answers there next."""

    async def main():
        book = Book()
        far = book.far["a"]
        async with book.process() as made:
            answer = await made.request(*ask())
            far.silent = True
            loop = asyncio.get_running_loop()
            began = loop.time()
            await made.close(Call().put(ABSENT, True), answer)  # noqa: FBT003 - a value under a key
            assert (loop.time() - began, far.tries) == (0, 0)
            assert [(one.connection, one.at) for one in unclosed([made])] == [("c-0", "a")]
            far.silent = False
            await asyncio.sleep(LONGEST)
            assert (far.held, unclosed([made])) == (set(), [])

    run(main())


@pytest.mark.parametrize("when", ["answered", "cut short", "closing"])
def test_the_next_process_closes_what_nobody_was_told(when):
    """It was killed in front of the answer, behind it, or while its Close waited for a next hop."""

    async def main():
        book = Book()
        far = book.far["a"]
        async with book.process() as made:
            if when == "cut short":
                far.delay = 1.0
                task = asyncio.ensure_future(made.request(*ask()))
                await asyncio.sleep(0.5)
                book.journal.lose()
                far.delay = 0.0
                await asyncio.sleep(1.0)
                await task
            else:
                answer = await made.request(*ask())
                if when == "closing":
                    far.away = True
                    await made.close(Call(), answer)
                book.journal.lose()
        assert far.held == {"c-0"}
        far.away = False
        async with book.process() as made:
            await asyncio.sleep(1.0)
            assert far.held == ({"c-0"} if when == "answered" else set())
            assert len(made.elements[0].connections) == (when == "answered")
            assert unclosed([made]) == []

    run(main())


def test_a_new_request_takes_the_place_of_a_close_that_was_owed():
    """What comes after it is not closed by it, also where the next hop is just being asked."""

    async def main():
        book = Book()
        far = book.far["a"]
        async with book.process() as made:
            answer = await made.request(*ask())
            far.away = True
            await made.close(Call(), answer)
            far.away, far.delay = False, 0.2
            await asyncio.sleep(0.1)  # the Close is under way now
            await made.request(*ask())
            await asyncio.sleep(60)
            assert far.held == {"c-0"}
            assert unclosed([made]) == []

    run(main())


def test_what_was_left_elsewhere_is_closed_there():
    """A connection that moves owes its Close to the old next hop alone."""

    async def main():
        book = Book()
        old, new = book.far["a"], book.far["b"]
        async with book.process() as made:
            answer = await made.request(*ask())
            old.silent = True
            await made.request(
                Call(values={TARGET: "b"}).within(30), NetworkServiceRequest(connection=answer)
            )
            assert (old.held, new.held) == ({"c-0"}, {"c-0"})
            old.silent = False
            await asyncio.sleep(2 * LONGEST)
            assert (old.held, new.held) == (set(), {"c-0"})

    run(main())


def behind(name="f"):
    """Return a path by which somebody called so was asked."""
    return Path(index=0, path_segments=[*PATH.path_segments, PathSegment(name=name, id="f-0")])


async def asked_of(made):
    """Return the answer to a Request that went by way of a next hop called ``f``."""
    call, request = ask()
    request.connection.path.CopyFrom(behind())
    return await made.request(call, request)


def test_a_next_hop_that_comes_back_at_another_socket_is_closed_at():
    """It is found by its name; until it is there, and for others, nothing is closed anywhere."""

    async def main():
        book = Book()
        old, new = book.far["a"], book.far["b"]
        async with book.process() as made:
            answer = await asked_of(made)
            old.away = True
            new.held.add("c-0")  # it has the journal of the one that died
            book.now_at["another"] = "b"
            await made.close(Call(), answer)
            await asyncio.sleep(10)
            assert new.held == {"c-0"}
            book.now_at["f"] = "b"
            await asyncio.sleep(2 * LONGEST)
            assert new.held == set()
            assert unclosed([made]) == []

    run(main())


def test_the_next_process_finds_a_next_hop_by_its_name_as_well():
    """The path by which it was reached was one of the process that died; the name is in the journal."""

    async def main():
        book = Book()
        old, new = book.far["a"], book.far["b"]
        async with book.process() as made:
            answer = await asked_of(made)
            old.away = True
            await made.close(Call(), answer)
            book.journal.lose()
        new.held.add("c-0")
        book.now_at["f"] = "b"
        async with book.process() as made:
            await asyncio.sleep(2 * LONGEST)
            assert new.held == set()
            assert unclosed([made]) == []

    run(main())


def test_who_died_without_an_answer_is_found_by_the_name_under_which_it_was_asked():
    """All were killed at once: no answer says who is behind us, and a descriptor's path leads nowhere."""

    async def main():
        book, first = Book(), "unix:///proc/1/fd/7"
        book.far[first] = old = Far(first)
        new = book.far["b"]
        async with book.process() as made:
            old.delay = 1.0
            for number in range(2):  # one of them behind a next hop that does not come back
                name = f"c-{number}"
                call, request = ask(name, first)
                call = call.put(TARGET_NAME, ("gone", "f")[number])
                asyncio.ensure_future(made.request(call, request)).add_done_callback(
                    lambda it: it.exception()
                )
            await asyncio.sleep(0.5)
            book.journal.lose()
            await asyncio.sleep(1.0)
        assert old.held == {"c-0", "c-1"}
        old.away = True
        new.held.add("c-1")  # it has the journal of the one that died
        book.now_at["f"] = "b"
        async with book.process() as made:
            await asyncio.sleep(2 * LONGEST)
            assert new.held == set()
            assert [one.connection for one in unclosed([made])] == ["c-0"]

    run(main())


def test_what_lives_on_at_a_successor_is_not_closed_there():
    """A connection that has moved to the new socket of the same next hop stays; nothing is owed any more."""

    async def main():
        book = Book()
        old, new = book.far["a"], book.far["b"]
        async with book.process() as made:
            answer = await asked_of(made)
            old.away = True
            book.now_at["f"] = "b"
            moved = Call(values={TARGET: "b"}).within(30)
            await made.request(moved, NetworkServiceRequest(connection=answer))
            await asyncio.sleep(2 * LONGEST)
            assert (new.held, new.closes) == ({"c-0"}, 0)
            assert unclosed([made]) == []

    run(main())


def test_who_refuses_is_left_alone_and_so_is_who_is_gone_for_good():
    """A refused first Request owes nothing, a Close three tries, and nothing longer than a token lives."""

    async def main():
        book = Book()
        far = book.far["a"]
        async with book.process() as made:
            far.error = Refused("no")
            with pytest.raises(Refused):
                await made.request(*ask())
            assert unclosed([made]) == []
            assert far.tries == 0
            far.error = None
            answer = await made.request(*ask())
            far.away = True
            await made.close(Call(), answer)
            far.away, far.error = False, Refused("no")
            await asyncio.sleep(60)
            assert unclosed([made]) == []
            assert far.tries < 10
            far.error = None
            answer = await made.request(*ask())
            far.away = True
            await made.close(Call(), answer)
            await asyncio.sleep(ENDS + 2 * LONGEST)
            assert unclosed([made]) == []
        assert {of for of, _ in book.kept} <= {"test"}, "nothing is left in the journal"

    run(main())


def caller(name="c-0", who="spiffe://mesh/c"):
    path = Path(index=0, path_segments=[PathSegment(name="c", id=name)])
    return Call(peer=Peer(spiffe_id=who)), Connection(id=name, path=path)


def test_who_asks_anew_without_our_answer_has_one_connection():
    """What it never heard of is closed first; nobody else's is, and a Close means it without its id."""

    async def main():
        begin = Begin()
        made = chain(UpdatePath("m", begin=begin), begin, clock=VirtualClock())
        async with made.running():

            async def asked(*more):
                call, connection = caller(*more)
                await made.request(call, NetworkServiceRequest(connection=connection))
                return {one.id for one in begin.connections}

            first = await asked()
            second = await asked()
            assert len(second) == 1
            assert not first & second
            assert len(await asked("c-1")) == 2
            assert len(await asked("c-0", "spiffe://mesh/other")) == 3
            call, connection = caller()
            await made.close(call, connection)
            assert len(begin.connections) == 2
            await made.close(call, connection)
            assert len(begin.connections) == 2

    run(main())


def test_a_close_that_cannot_be_made_does_not_stop_who_asks_anew():
    """The old connection is owed to whoever is behind, and the new one is asked for."""

    async def main():
        book = Book()
        begin = Begin()
        dial = Dial(book, target="a")
        made = chain(UpdatePath("m", begin=begin), begin, dial, end=Dialled(), clock=VirtualClock())
        async with made.running():
            call, connection = caller()
            await made.request(call, NetworkServiceRequest(connection=connection))
            book.far["a"].error = Unavailable("busy")
            call, connection = caller()
            with pytest.raises(MeshError):
                await made.request(call, NetworkServiceRequest(connection=connection))
            book.far["a"].error = None
            await asyncio.sleep(2 * LONGEST)
            assert book.far["a"].held == set()

    run(main())
