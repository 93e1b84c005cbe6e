"""ByKind."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.probes import Count
from nsmesh.core.virtual import run
from nsmesh.elements.by_kind import ByKind
from nsmesh.model.messages import (
    Connection,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
    NetworkServiceRequest,
)


def test_each_kind_goes_its_way():
    """Register, Find and Unregister reach the chain of their kind only; a Request goes on past both."""

    async def main():
        services, endpoints, end = Count(), Count(), Count()
        switch = ByKind(chain(services, name="services"), chain(endpoints, name="endpoints"))
        both = chain(switch, end)
        async with both.running():
            assert switch.services.scope.running
            assert switch.endpoints.scope.running
            await both.register(Call(), NetworkService(name="s"))
            await both.unregister(Call(), NetworkService(name="s"))
            assert [i async for i in both.find(Call(), NetworkServiceQuery())] == []
            assert services.seen == {"register": 1, "unregister": 1, "find": 1}
            assert not endpoints.seen
            await both.register(Call(), NetworkServiceEndpoint(name="e"))
            await both.unregister(Call(), NetworkServiceEndpoint(name="e"))
            assert [i async for i in both.find(Call(), NetworkServiceEndpointQuery())] == []
            assert endpoints.seen == {"register": 1, "unregister": 1, "find": 1}
            assert not end.seen
            await both.request(Call(), NetworkServiceRequest(connection=Connection(id="c")))
            assert end.seen == {"request": 1}
        assert not switch.services.scope.running
        assert not switch.endpoints.scope.running

    run(main())
