"""OtherDomains."""

from __future__ import annotations

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Invalid
from nsmesh.core.probes import Count
from nsmesh.core.tokens import OUTGOING
from nsmesh.core.virtual import run
from nsmesh.elements.other_domains import OtherDomains
from nsmesh.model.messages import (
    Connection,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
    NetworkServiceRequest,
)


def endpoint(name, *services):
    return NetworkServiceEndpoint(name=name, network_service_names=services)


@pytest.mark.parametrize(
    ("entry", "foreign"),
    [
        (NetworkService(name="s"), False),
        (NetworkService(name="s@d"), True),
        (NetworkService(), False),
        (endpoint("e", "s", "t"), False),
        (endpoint("e@d", "s"), True),
        (endpoint("e", "s", "t@d"), True),
        (endpoint("", "s@d"), True),
        (endpoint(""), False),
    ],
)
def test_a_name_with_an_at_leads_elsewhere(entry, foreign):
    """Register, Find and Unregister of it, as they are; all else goes on, and so does a Request."""

    async def main():
        there, here = Count(), Count()
        element = OtherDomains(chain(there, name="elsewhere"))
        both = chain(element, here)
        query = (
            NetworkServiceQuery(network_service=entry)
            if isinstance(entry, NetworkService)
            else NetworkServiceEndpointQuery(network_service_endpoint=entry)
        )
        async with both.running():
            assert element.elsewhere.scope.running
            assert await both.register(Call(), entry) == entry
            assert [found async for found in both.find(Call(), query)] == []
            await both.unregister(Call(), entry)
            asked, spared = (there, here) if foreign else (here, there)
            assert asked.seen == {"register": 1, "find": 1, "unregister": 1}
            assert not spared.seen
            await both.request(Call(), NetworkServiceRequest(connection=Connection(id="c")))
            assert here.seen["request"] == 1
        assert not element.elsewhere.scope.running

    run(main())


class Back(Element):
    """Calls somebody with the headers that a call would be sent with."""

    def __init__(self):
        self.to = None

    def _received(self, call):
        return Call(metadata=call.get(OUTGOING))

    async def register(self, call, entry, next):
        return await self.to.register(self._received(call), entry)

    def find(self, call, query, next):
        return self.to.find(self._received(call), query)

    async def unregister(self, call, entry, next):
        await self.to.unregister(self._received(call), entry)


def test_a_name_that_goes_round_is_refused():
    """Two registries that name each other: Register, Find and Unregister end with what to change."""

    async def main():
        backs = Back(), Back()
        first, second = (
            chain(OtherDomains(chain(back, end=Count(), name="elsewhere")), end=Count(), name="registry")
            for back in backs
        )
        backs[0].to, backs[1].to = second, first
        async with first.running(), second.running():
            entry = endpoint("e@d", "s@d")
            query = NetworkServiceEndpointQuery(network_service_endpoint=entry)
            with pytest.raises(Invalid, match="e@d has come round: 2 registries have passed it on") as caught:
                await first.register(Call(), entry)
            assert "NSM_PROXY_REGISTRY_URL" in caught.value.remedy
            with pytest.raises(Invalid, match="come round"):
                await first.unregister(Call(), entry)
            with pytest.raises(Invalid, match="come round"):
                [found async for found in first.find(Call(), query)]

    run(main())
