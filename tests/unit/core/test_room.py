"""Room: never more inside than there is room for, everybody gets in at last, and it fits what can be done."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.room import Room
from nsmesh.core.virtual import run


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from(("ends", "late", "cancelled"))), max_size=40))
def test_never_more_inside_than_room_and_all_get_in(visits):
    """Whatever becomes of those inside or waiting, the others come in, and at the end it is empty."""

    async def main():
        room, served = Room(4), []

        async def visit(number, seconds, fate):
            async with room as entered:
                assert room.inside <= room.most
                await asyncio.sleep(seconds)
                if fate == "late":
                    room.late(entered)
                else:
                    room.in_time()
                served.append(number)

        tasks = [asyncio.ensure_future(visit(at, *one)) for at, one in enumerate(visits)]
        for task, (seconds, fate) in zip(tasks, visits, strict=True):
            if fate == "cancelled":
                asyncio.get_running_loop().call_later(seconds / 2, task.cancel)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [one for one in done if isinstance(one, AssertionError)]
        sure = {at for at, (_, fate) in enumerate(visits) if fate != "cancelled"}
        assert sure <= set(served)
        assert room.inside == 0
        assert 1 <= room.size <= 4

    run(main())


def test_those_who_were_inside_together_shrink_it_once():
    """Eight that came to no end halve it once; each that ends well gives one place back."""

    async def main():
        room = Room(8)
        entered = [await room.__aenter__() for _ in range(8)]
        for one in entered:
            room.late(one)
            await room.__aexit__()
        assert room.size == 4
        for _ in range(4):
            room.in_time()
        assert room.size == 4
        room.in_time()
        assert room.size == 5
        for _ in range(99):
            room.in_time()
        assert room.size == 8

    run(main())


async def served_by_one_that_is_slow(room):
    """Have sixty ask a server that takes a second for each, also for who has given up; return the seconds."""
    queue = asyncio.Queue()

    async def serve():
        while True:
            answer = await queue.get()
            await asyncio.sleep(1)
            if not answer.done():
                answer.set_result(None)

    async def ask():
        while True:
            async with room as entered:
                answer = asyncio.get_running_loop().create_future()
                queue.put_nowait(answer)
                try:
                    async with asyncio.timeout(7.5):
                        await answer
                except TimeoutError:
                    room.late(entered)
                else:
                    room.in_time()
                    return

    server = asyncio.ensure_future(serve())
    await asyncio.gather(*(ask() for _ in range(60)))
    server.cancel()
    return asyncio.get_running_loop().time()


def test_many_that_would_keep_each_other_from_an_answer_are_all_served():
    """What is asked for and given up takes the server's time as well: thirty-two at once would never end."""

    async def main():
        assert await served_by_one_that_is_slow(Room(32)) < 200

    run(main())
