"""What happened in a mesh."""

import asyncio

from nsmesh.core import virtual
from nsmesh.core.virtual import EPOCH
from nsmesh.standalone.events import KEPT, Events
from nsmesh.standalone.news import News


def run(work):
    """Run ``work(events, news)`` in virtual time."""

    async def main():
        news = News()
        return await work(Events(virtual.VirtualClock(), news), news)

    return virtual.run(main())


def test_who_asks_again_misses_nothing_and_gets_nothing_twice():
    """Events have numbers in their order; after the last one that was seen come only newer ones."""

    async def work(events, _news):
        for text in ("one", "two", "three"):
            events.add("mesh", text)
        assert [event.number for event in events.after(0)] == [1, 2, 3]
        assert [event.text for event in events.after(2)] == ["three"]
        assert list(events.after(events.last)) == []

    run(work)


def test_old_ones_are_forgotten_but_not_their_numbers():
    """What is kept has a limit; numbers go on."""

    async def work(events, _news):
        for number in range(KEPT + 5):
            events.add("mesh", str(number))
        assert len(events.kept) == KEPT
        assert events.kept[0].number == 6
        assert events.last == KEPT + 5

    run(work)


def test_each_wakes_those_who_look():
    """Also what is no event, but changes what is seen."""

    async def work(events, news):
        with news.listen() as changed:
            events.add("mesh", "up")
            assert changed.is_set()
            changed.clear()
            events.tell()
            assert changed.is_set()

    run(work)


def test_a_row_is_what_people_see():
    """The time in UTC to the millisecond, the text without its indentation."""

    async def work(events, _news):
        await asyncio.sleep(0.25)
        return events.add("wire", "  hop a", connection="c-0", failed=True, remedy="look").row()

    row = run(work)
    assert row.pop("time").endswith(f"{(EPOCH + 0.25) % 60:06.3f}Z")
    assert row == {
        "kind": "wire",
        "text": "hop a",
        "connection": "c-0",
        "failed": True,
        "remedy": "look",
    }


def test_waiting_for_news_has_an_end():
    """A condition that becomes true at some news is seen then; one that never does is given up in time."""

    async def work(events, news):
        asyncio.get_running_loop().call_later(5, events.add, "mesh", "up")
        assert await news.until(lambda: events.last == 1, 10)
        assert asyncio.get_running_loop().time() == 5
        assert not await news.until(lambda: events.last == 2, 10)
        assert asyncio.get_running_loop().time() == 15

    run(work)
