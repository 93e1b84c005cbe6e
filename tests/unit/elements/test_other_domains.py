"""OtherDomains."""

from __future__ import annotations

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.probes import Count
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
