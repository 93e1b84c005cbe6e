"""Twins: whoever moves keeps its name, and two that are alive do not hide each other by turns."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.chains.registry import memory_registry
from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.errors import Conflict
from nsmesh.core.lookup import find_endpoints
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.twins import Twins
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE

FIRST, SECOND = "tcp://192.0.2.1:5001", "tcp://192.0.2.2:5001"


def scenario(body):
    async def main():
        registry = memory_registry(clock=VirtualClock())
        async with registry.running():

            async def register(url):
                await registry.register(Call(), NetworkServiceEndpoint(name="fwd", url=url))

            async def where():
                found = await find_endpoints(registry, Call(), NetworkServiceEndpoint(name="fwd"))
                return [entry.url for entry in found]

            await body(registry, register, where)

    run(main())


def test_the_second_of_two_is_told_and_the_first_stays():
    """It may take the name once, as who moves does; not again after the first one has come back."""

    async def body(registry, register, where):
        await register(FIRST)
        await asyncio.sleep(10)
        await register(SECOND)
        await asyncio.sleep(30)
        await register(FIRST)
        for _ in range(10):
            with pytest.raises(Conflict, match=rf"fwd is taken: .* at {FIRST}, and {SECOND} .*NSM_NAME"):
                await register(SECOND)
            await asyncio.sleep(40)
            await register(FIRST)
            assert await where() == [FIRST]

    scenario(body)


def test_a_name_is_free_when_its_owner_has_gone():
    """By Unregister or by its time: then the other one gets it."""

    async def body(registry, register, where):
        for gone in (registry.unregister(Call(), NetworkServiceEndpoint(name="fwd")), asyncio.sleep(70)):
            await register(FIRST)
            await register(SECOND)
            await register(FIRST)
            with pytest.raises(Conflict):
                await register(SECOND)
            await gone
            await register(SECOND)
            assert await where() == [SECOND]
            await registry.unregister(Call(), NetworkServiceEndpoint(name="fwd"))

    scenario(body)


def test_who_moves_and_moves_back_later_is_alone():
    """Whoever had the name before a whole life of silence is no twin of who has it now."""

    async def body(registry, register, where):
        for _ in range(4):
            await register(FIRST)
            for _ in range(3):
                await register(SECOND)
                await asyncio.sleep(30)
            await register(FIRST)
            await asyncio.sleep(30)
            await register(FIRST)
            await asyncio.sleep(70)

    scenario(body)


def test_nothing_is_remembered_of_the_gone():
    """Neither of those that were unregistered, nor of services."""

    async def main():
        twins = Twins()
        end = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
        handler = chain(twins, end=end, clock=VirtualClock())
        for number in range(50):
            entry = NetworkServiceEndpoint(name=str(number), url=FIRST)
            await handler.register(Call(), entry)
            await handler.unregister(Call(), entry)
        await handler.register(Call(), NetworkService(name="s"))
        await handler.unregister(Call(), NetworkService(name="s"))
        assert len(twins) == 0

    run(main())
