"""DnsContext: an endpoint tells its clients which name servers answer for what."""

from __future__ import annotations

from collections.abc import Iterable

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, DNSConfig, NetworkServiceRequest


class DnsContext(Element):
    """Adds the endpoint's DNS configurations to each connection.

    The answer always has a context with ``ip_context`` and ``dns_context``, empty ones if need be: clients
    and forwarders of the field fall over where they are absent.

    After:  Begin
    Writes: context
    Close:  passes on
    """

    after = ("Begin",)

    def __init__(self, configs: Iterable[DNSConfig] = ()) -> None:
        self._configs = tuple(copy_of(config) for config in configs)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Write the configurations, pass on."""
        context = request.connection.context
        context.ip_context.SetInParent()
        context.dns_context.SetInParent()
        present = context.dns_context.configs
        present.extend(config for config in self._configs if config not in present)
        answer = await next.request(call, request)
        answer.context.ip_context.SetInParent()
        answer.context.dns_context.SetInParent()
        return answer
