"""Retry: until it is granted, or the deadline has come."""

import asyncio

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import NotFound, TimedOut
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.retry import Retry
from nsmesh.model.messages import Connection, NetworkServiceRequest


class Far(Element):
    def __init__(self, failures, delay=0.0):
        self.failures = failures
        self.delay = delay
        self.times = []
        self.seen = []

    async def request(self, call, request, next):
        self.times.append(round(asyncio.get_running_loop().time(), 3))
        self.seen.append(request.connection.network_service)
        request.connection.network_service = "spoiled"
        await asyncio.sleep(self.delay)
        if self.failures:
            self.failures -= 1
            raise NotFound("not yet")
        return await next.request(call, request)


def attempt(far, call=None, **options):
    async def main():
        handler = chain(Retry(**options), far, clock=VirtualClock())
        request = NetworkServiceRequest(connection=Connection(id="a", network_service="s"))
        return await handler.request(call() if call else Call(), request)

    return run(main())


def test_it_repeats_with_a_floor_until_it_succeeds():
    """Quick failures are 200 ms apart; each try gets the Request as it came."""
    far = Far(3)
    attempt(far)
    assert far.times == [0.0, 0.2, 0.4, 0.6]
    assert set(far.seen) == {"s"}


def test_slow_failures_are_repeated_at_once():
    """What took longer than the interval is not waited for."""
    far = Far(2, delay=1.0)
    attempt(far)
    assert far.times == [0.0, 1.0, 2.0]


def test_the_deadline_ends_it_with_the_last_error():
    """The caller reads why, and gets it in time."""
    far = Far(1000)
    with pytest.raises(NotFound):
        attempt(far, lambda: Call().within(1.1))
    assert far.times[-1] == 1.0


def test_one_try_is_bounded():
    """A try that hangs is cut off at its limit, and the next one follows."""
    far = Far(0, delay=100.0)
    with pytest.raises(TimedOut):
        attempt(far, lambda: Call().within(40), limit=15)
    assert far.times == [0.0, 15.0, 30.0]
