"""Lookup: an answer of the registry is used again until something changes there."""

from nsmesh.core.call import Call
from nsmesh.core.element import Tail
from nsmesh.core.lookup import Lookup
from nsmesh.core.virtual import run
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
)


class Registry(Tail):
    """Knows one service and one endpoint, and counts what it is asked."""

    def __init__(self):
        self.version = 1
        self.asked = 0
        self.changes_meanwhile = False
        self.entry = NetworkServiceEndpoint(name="a", network_service_names=["intranet"])

    async def find(self, call, query):
        self.asked += 1
        if self.changes_meanwhile:
            self.version += 1
        if isinstance(query, NetworkServiceQuery):
            yield NetworkServiceResponse(network_service=NetworkService(name=query.network_service.name))
        else:
            yield NetworkServiceEndpointResponse(network_service_endpoint=self.entry)


async def ask(lookup, name="intranet", now=0.0):
    service = await lookup.service(Call(), name, "")
    return service, await lookup.endpoints(Call(), name, now)


def test_an_answer_is_used_again_until_the_version_changes():
    """Two questions for the first Request, none for the second, two more after a change."""

    async def scenario():
        registry = Registry()
        lookup = Lookup(registry, lambda: registry.version)
        for version, asked in ((1, 2), (1, 2), (2, 4), (2, 4)):
            registry.version = version
            service, [found] = await ask(lookup)
            assert (service.name, found.name, registry.asked) == ("intranet", "a", asked)

    run(scenario())


def test_a_registry_that_is_not_sure_is_asked_each_time():
    """Without a version, for another domain's names, and where something changed while it answered."""

    async def scenario():
        registry = Registry()
        for lookup, name in (
            (Lookup(registry), "intranet"),
            (Lookup(registry, lambda: None), "intranet"),
            (Lookup(registry, lambda: registry.version), "intranet@other.domain"),
        ):
            before = registry.asked
            await ask(lookup, name)
            await ask(lookup, name)
            assert registry.asked == before + 4
        registry.changes_meanwhile = True
        before = registry.asked
        lookup = Lookup(registry, lambda: registry.version)
        await ask(lookup)
        await ask(lookup)
        assert registry.asked == before + 4

    run(scenario())


def test_what_is_over_is_asked_for_again():
    """An endpoint whose time has come may have been registered anew."""

    async def scenario():
        registry = Registry()
        registry.entry.expiration_time.seconds = 100
        lookup = Lookup(registry, lambda: registry.version)
        for now, asked in ((99.0, 2), (99.5, 2), (100.0, 3)):
            await ask(lookup, now=now)
            assert registry.asked == asked

    run(scenario())
