import asyncio
import gc
import weakref

import pytest

from nsmesh.core import garbage
from nsmesh.core.virtual import run


class Ring:
    def __init__(self):
        self.itself = self


@pytest.fixture
def thresholds():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.enable()
    gc.unfreeze()


def test_cycles_are_still_found(thresholds):
    """What refers to itself and to nothing else goes away, only later."""
    garbage.settle()
    dead = weakref.ref(Ring())
    kept = []
    for _ in range(garbage.YOUNG + 1000):
        kept.append(Ring())
        if dead() is None:
            break
    assert dead() is None


def test_nothing_is_collected_while_a_process_starts(thresholds):
    """A ring is kept until the start is over, and goes then."""
    garbage.wait()
    dead = weakref.ref(Ring())
    for _ in range(garbage.YOUNG + 1000):
        Ring()
    assert dead() is not None
    garbage.settle()
    assert dead() is None
    assert gc.isenabled()


def test_what_was_there_is_not_looked_at_again(thresholds):
    """Objects of the start are out of the collector's sight."""
    before = gc.get_freeze_count()
    garbage.settle()
    assert gc.get_freeze_count() > before


def test_who_tidies_up_now_and_then_finds_old_cycles_too():
    """What has lived through many collections goes away at the next time."""

    async def main():
        ring = Ring()
        gc.collect()  # it is old now: the collector looks there last
        dead = weakref.ref(ring)
        del ring
        assert dead() is not None
        tidying = asyncio.create_task(garbage.tidied(60.0))
        await asyncio.sleep(61)
        assert dead() is None
        tidying.cancel()

    run(main())
