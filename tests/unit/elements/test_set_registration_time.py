"""SetRegistrationTime."""

from __future__ import annotations

import asyncio

from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.set_registration_time import SetRegistrationTime
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.model.times import seconds, timestamp
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE


def make():
    registry = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
    return chain(SetRegistrationTime(), end=registry, clock=VirtualClock())


def since(entry) -> float:
    return seconds(entry.initial_registration_time) - EPOCH


def test_the_first_time_stays():
    """It is set at the first Register and kept over later ones, whatever those say."""

    async def main():
        chain = make()
        entry = NetworkServiceEndpoint(name="e")
        assert since(await chain.register(Call(), entry)) == 0.0
        await asyncio.sleep(40)
        assert since(await chain.register(Call(), NetworkServiceEndpoint(name="e"))) == 0.0
        forged = NetworkServiceEndpoint(name="e", initial_registration_time=timestamp(EPOCH + 77))
        assert since(await chain.register(Call(), forged)) == 0.0

    run(main())


def test_a_registry_that_forgot_takes_the_endpoints_word():
    """After a restart of the registry the time that the endpoint was given earlier is kept."""

    async def main():
        entry = NetworkServiceEndpoint(name="e", initial_registration_time=timestamp(EPOCH - 500))
        assert since(await make().register(Call(), entry)) == -500.0

    run(main())


def test_after_its_removal_an_endpoint_begins_anew():
    """However it was removed: nothing is remembered beside the store."""

    async def main():
        chain = make()
        await chain.register(Call(), NetworkServiceEndpoint(name="e"))
        await chain.unregister(Call(), NetworkServiceEndpoint(name="e"))
        await asyncio.sleep(10)
        assert since(await chain.register(Call(), NetworkServiceEndpoint(name="e"))) == 10.0

    run(main())


def test_services_pass():
    """A service has no such time."""
    assert run(make().register(Call(), NetworkService(name="s"))) == NetworkService(name="s")
