"""Virtual time: hours in milliseconds, in the right order."""

import asyncio
import time

from nsmesh.core.virtual import EPOCH, VirtualClock, run


def test_hours_pass_at_once_and_in_order():
    """Sleepers wake in the order of their times, and the wall hardly moves."""

    async def main():
        woken = []

        async def sleeper(seconds):
            await asyncio.sleep(seconds)
            woken.append(seconds)

        await asyncio.gather(*(sleeper(seconds) for seconds in (7200, 0.001, 3600, 5)))
        return woken, asyncio.get_running_loop().time()

    began = time.process_time()
    woken, now = run(main())
    assert woken == [0.001, 5, 3600, 7200]
    assert now == 7200
    assert time.process_time() - began < 2


def test_the_clock_follows_the_loop():
    """Wall time starts at the epoch and moves with the loop, also over many days."""

    async def main():
        clock = VirtualClock()
        assert clock.now() == EPOCH
        await asyncio.sleep(100 * 86400)
        assert clock.now() == EPOCH + 100 * 86400
        assert clock.monotonic() == 100 * 86400

    run(main())


def test_many_small_steps_add_up():
    """Twenty thousand steps of a tenth of a second drift less than a millisecond."""

    async def main():
        for _ in range(20000):
            await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time()

    assert abs(run(main()) - 2000) < 1e-3


def test_timeouts_work():
    """A timeout ends what sleeps longer, at its time."""

    async def main():
        try:
            async with asyncio.timeout(15):
                await asyncio.sleep(1000)
        except TimeoutError:
            return asyncio.get_running_loop().time()
        return None

    assert run(main()) == 15


def test_real_descriptors_still_work():
    """What comes from outside the loop (a pipe, a thread) is noticed without a timer to wait for."""

    async def main():
        return await asyncio.to_thread(lambda: 7)

    assert run(main()) == 7
