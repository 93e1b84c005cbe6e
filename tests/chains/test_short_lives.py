"""Tokens of 30 s and of 5 s, with the field's calls of 15 s: nothing flaps, and what ends ends in time."""

from __future__ import annotations

import asyncio

import pytest
from small_mesh import SmallMesh

from nsmesh.chains.endpoint import registration
from nsmesh.chains.registry import memory_registry
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.expiry import limited
from nsmesh.core.probes import Count
from nsmesh.core.tokens import PlainTokens
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.expire import Expire
from nsmesh.model.messages import NetworkServiceEndpoint
from nsmesh.model.times import seconds

HOUR = 3600


@pytest.mark.parametrize("life", [30.0, 5.0])
def test_a_wire_with_short_tokens_stays(life):
    """Refreshes come at 0.2 of the life; in an hour nobody closes and nobody heals."""

    async def main():
        async with SmallMesh(lifetime=life).running() as mesh:
            first = await mesh.ask()
            refreshes = mesh.probes["nse1"].requests
            for _ in range(HOUR):
                await asyncio.sleep(1)
                assert mesh.holds()["nse1"] == 1
                assert mesh.heal.healing == []
            expected = HOUR / (0.2 * life)
            assert expected <= mesh.probes["nse1"].requests - refreshes <= expected * 1.25
            (last,) = mesh.begins["nsc"].connections
            assert [segment.id for segment in last.path.path_segments] == [
                segment.id for segment in first.path.path_segments
            ]
            await mesh.close()
            mesh.assert_empty()

    run(main())


@pytest.mark.parametrize("life", [30.0, 5.0])
def test_a_client_that_dies_leaves_nothing_behind_its_tokens(life):
    """Everything further in is gone when its last token is over, and not before a third of it."""

    async def main():
        async with SmallMesh(lifetime=life).running() as mesh:
            await mesh.ask()
            mesh.begins["nsc"]._lives.clear()  # it is killed: no Close, no refresh
            mesh.cable.cut()
            await asyncio.sleep(life / 3)
            assert mesh.holds()["nse1"] == 1
            await asyncio.sleep(life * 2 / 3)
            assert mesh.holds()["nse1"] == mesh.holds()["mgr"] == mesh.holds()["onward"] == 0

    run(main())


class Lives(Element):
    """Stands for the path header: what is registered may live as long as the token that came along."""

    def __init__(self, clock, life):
        self.clock, self.life = clock, life

    async def register(self, call, entry, next):
        return await next.register(limited(call, self.clock.now() + self.life), entry)


class Line:
    """A registry over a line that breaks when it is restarted; ``now`` is who answers."""

    def __init__(self, handler):
        self.now = handler
        self.broken = asyncio.Event()

    def restart(self, handler):
        self.now = handler
        self.broken.set()
        self.broken = asyncio.Event()

    async def register(self, call, entry):
        return await self.now.register(call, entry)

    async def unregister(self, call, entry):
        await self.now.unregister(call, entry)

    async def find(self, call, query):
        broken = self.broken
        stream = aiter(self.now.find(call, query))
        end = asyncio.ensure_future(broken.wait())
        while True:
            item = asyncio.ensure_future(anext(stream, None))
            await asyncio.wait((item, end), return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                item.cancel()
                await asyncio.gather(item, return_exceptions=True)
                raise Unavailable("the registry is gone")
            found = item.result()
            if found is None:
                end.cancel()
                return
            yield found


def registrant(line, clock):
    return registration("nse", manager=line, peers=None, tokens=PlainTokens(clock), clock=clock)


ENTRY = NetworkServiceEndpoint(name="nse", network_service_names=["s"], url="tcp://192.0.2.1:1")


@pytest.mark.parametrize("life", [30.0, 5.0])
def test_a_registration_with_short_tokens_stays(life):
    """Through a manager's half and a registry, both of which let it expire: never unregistered in an hour."""

    async def main():
        clock = VirtualClock()
        gone = Count()
        registry = memory_registry(clock=clock, front=(Lives(clock, life), gone))
        manager = chain(Lives(clock, life), Expire(), end=registry, name="manager", clock=clock)
        client = registrant(Line(manager), clock)
        async with registry.running(), manager.running(), client.running():
            await client.register(Call(peer=Peer(in_process=True)).within(15), ENTRY)
            await asyncio.sleep(HOUR)
            assert gone.seen["unregister"] == 0
            assert gone.seen["register"] <= HOUR / (life * 2 / 3) + 2

    run(main())


def test_the_first_registration_time_outlives_a_registry():
    """A registry that restarts with nothing takes the endpoint's word for it, again and again."""

    async def main():
        clock = VirtualClock()
        first = memory_registry(clock=clock)
        line = Line(first)
        client = registrant(line, clock)
        async with client.running():
            async with first.running():
                await client.register(Call(peer=Peer(in_process=True)).within(15), ENTRY)
                await asyncio.sleep(100)
            for age in (100, 101, 170):
                second = memory_registry(clock=clock)
                async with second.running():
                    line.restart(second)
                    await asyncio.sleep(age)
                    (stored,) = await _stored(second)
                    assert seconds(stored.initial_registration_time) == EPOCH

    run(main())


async def _stored(registry):
    from nsmesh.core.lookup import find_endpoints

    return await find_endpoints(registry, Call(), NetworkServiceEndpoint())
