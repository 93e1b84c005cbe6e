"""RegisterRetry, in virtual time."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Invalid, TimedOut, Unauthorized, Unavailable
from nsmesh.core.probes import Check, Inject
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.register_retry import RegisterRetry
from nsmesh.model.messages import NetworkServiceEndpoint

EP = NetworkServiceEndpoint(name="e")


def away() -> Unavailable:
    return Unavailable("nobody is there")


def make(*behind: Element):
    return chain(RegisterRetry(), *behind, clock=VirtualClock())


def test_it_is_tried_until_it_works():
    """The first pause is the contract's 200 ms, plus up to a quarter; later ones grow."""

    async def main():
        times = []

        def seen(call, entry):
            times.append(asyncio.get_running_loop().time())
            assert call.remaining() == pytest.approx(15.0)
            entry.url = "changed by a failed try"

        answer = await make(Check("register", seen), Inject(away, "register", times=6)).register(
            Call(), NetworkServiceEndpoint(name="e", url="u")
        )
        assert answer.name == "e"
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert 0.2 <= gaps[0] <= 0.25 + 1e-9
        assert all(gap <= 2.5 for gap in gaps)
        assert gaps[5] > gaps[0]

    run(main())


def test_each_try_begins_with_the_entry_as_it_was_given():
    """What a failed try did to its copy is not seen by the next."""

    async def main():
        urls = []

        def seen(call, entry):
            urls.append(entry.url)
            entry.url = "changed"

        behind = Check("register", seen), Inject(away, "register", times=2)
        await make(*behind).register(Call(), NetworkServiceEndpoint(name="e", url="u"))
        assert urls == ["u", "u", "u"]

    run(main())


def test_unregister_is_repeated_as_well():
    """The same rule for the other verb."""
    run(make(Inject(away, "unregister", times=3)).unregister(Call(), EP))


def test_a_try_that_hangs_is_given_up():
    """A try gets 15 s; the next one may work."""

    class Hang(Element):
        calls = 0

        async def register(self, call, entry, next):
            self.calls += 1
            if self.calls == 1:
                await asyncio.sleep(call.remaining())
                call.remaining()
            return await next.register(call, entry)

    async def main():
        await make(Hang()).register(Call(), EP)
        assert asyncio.get_running_loop().time() == pytest.approx(15.2, abs=0.1)

    run(main())


def test_the_deadline_ends_it_with_the_last_error():
    """The caller reads why it did not work, not that time is over, and not after the deadline."""

    async def main():
        with pytest.raises(Unavailable, match="nobody is there"):
            await make(Inject(away, "register")).register(Call().within(3), EP)
        assert asyncio.get_running_loop().time() <= 3.0

    run(main())


@pytest.mark.parametrize("error", [Unauthorized("no"), Invalid("no name")])
def test_a_refusal_is_told_at_once(error):
    """What repeating cannot change is not repeated."""

    async def main():
        with pytest.raises(type(error)):
            await make(Inject(lambda: error, "register")).register(Call(), EP)
        assert asyncio.get_running_loop().time() == 0.0

    run(main())


def test_a_passed_deadline_is_an_error():
    """A call that comes too late is not tried for ever."""

    async def main():
        call = Call().within(1)
        await asyncio.sleep(2)

        class Look(Element):
            async def register(self, call, entry, next):
                call.remaining()
                return await next.register(call, entry)

        with pytest.raises(TimedOut):
            await make(Look()).register(call, EP)

    run(main())
