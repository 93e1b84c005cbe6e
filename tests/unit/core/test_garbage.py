import gc
import weakref

import pytest

from nsmesh.core import garbage


class Ring:
    def __init__(self):
        self.itself = self


@pytest.fixture
def thresholds():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
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


def test_what_was_there_is_not_looked_at_again(thresholds):
    """Objects of the start are out of the collector's sight."""
    before = gc.get_freeze_count()
    garbage.settle()
    assert gc.get_freeze_count() > before
