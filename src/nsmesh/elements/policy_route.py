"""PolicyRoutes: an endpoint tells its clients which traffic goes through the wire."""

from __future__ import annotations

from collections.abc import Iterable

from nsmesh.core.call import Call, Key
from nsmesh.core.codecs import json_codec
from nsmesh.core.element import Element, Handler
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, IPContext, NetworkServiceRequest, PolicyRoute

SOURCES: Key[tuple[str, ...]] = Key("policy-sources", json_codec(tuple))
"""In ``call.state``: the source addresses that policies have added to this connection."""


class PolicyRoutes(Element):
    """Gives each connection the endpoint's policies; their sources become addresses of the client.

    ``policies`` may be replaced at any time: the next refresh brings the new ones and takes the old away.

    After:  Ipam
    Writes: policies, src_ip_addrs
    Leaves: the addresses added, per connection
    Close:  passes on
    """

    after = ("Ipam",)

    def __init__(self, policies: Iterable[PolicyRoute]) -> None:
        self.policies = tuple(copy_of(policy) for policy in policies)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Write the policies, pass on."""
        ip = request.connection.context.ip_context
        del ip.policies[:]
        ip.policies.extend(self.policies)
        call.state.set(SOURCES, self._sources(ip, call.state.get(SOURCES) or ()))
        return await next.request(call, request)

    def _sources(self, ip: IPContext, old: tuple[str, ...]) -> tuple[str, ...]:
        wanted = tuple(
            dict.fromkeys(source for policy in self.policies if (source := getattr(policy, "from")))
        )
        kept = [address for address in ip.src_ip_addrs if address not in old or address in wanted]
        added = tuple(source for source in wanted if source not in kept)
        del ip.src_ip_addrs[:]
        ip.src_ip_addrs.extend([*kept, *added])
        return added + tuple(source for source in old if source in wanted)
