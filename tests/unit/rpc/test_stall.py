"""The patience with a peer that does not read."""

import asyncio

from nsmesh.core import virtual
from nsmesh.rpc.stall import Stall


def ended_after(moves, limit=10.0, stop=None):
    """Return the second in which it ended, or None, when something moves at the seconds ``moves``."""

    async def main():
        loop = asyncio.get_running_loop()
        ended = []
        stall = Stall(loop, limit, lambda: ended.append(loop.time()))
        began = loop.time()
        for second in moves:
            loop.call_at(began + second, stall.moved)
        if stop is not None:
            loop.call_at(began + stop, stall.stop)
        await asyncio.sleep(100)
        return ended[0] - began if ended else None

    return virtual.run(main())


def test_it_ends_when_nothing_moves():
    """After the limit, once."""
    assert ended_after([]) == 10


def test_each_move_begins_the_time_anew():
    """The limit counts from the last of them."""
    assert ended_after([3, 9, 18]) == 28


def test_one_that_was_stopped_never_ends():
    """Also after moves."""
    assert ended_after([5], stop=14) is None
