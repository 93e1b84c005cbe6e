"""Wires of one client do not share addresses."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Conflict
from nsmesh.elements.keep_apart import KeepApart
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest, Route


class Endpoint(Element):
    """Answers with the next pair of addresses, and remembers what was excluded and closed."""

    def __init__(self, *pairs):
        self.pairs = list(pairs)
        self.excluded = []
        self.closed = []

    async def request(self, call, request, next):
        self.excluded.append(list(request.connection.context.ip_context.excluded_prefixes))
        answer = copy_of(request.connection)
        source, target = self.pairs.pop(0)
        ip = answer.context.ip_context
        ip.src_ip_addrs[:] = [source]
        ip.dst_ip_addrs[:] = [target]
        del ip.src_routes[:]
        ip.src_routes.extend([Route(prefix="10.9.0.0/16"), Route(prefix="0.0.0.0/0")])
        return answer

    async def close(self, call, connection, next):
        self.closed.append(connection.id)


def ask(number):
    return NetworkServiceRequest(connection=Connection(id=f"nsc-{number}", network_service="s"))


def of(endpoint):
    return chain(BeginClient(), KeepApart(), endpoint)


def test_the_next_wire_excludes_the_addresses_of_the_others():
    """Addresses and routes of the first wire, each once, and no route to everywhere; not one's own."""

    async def scenario():
        endpoint = Endpoint(*[("10.0.0.1/32", "10.0.0.0/32")] * 2, ("10.0.0.3/32", "10.0.0.2/32"))
        handler = of(endpoint)
        first = await handler.request(Call(), ask(0))
        await handler.request(Call(), NetworkServiceRequest(connection=first))
        await handler.request(Call(), ask(1))
        assert endpoint.excluded == [[], [], ["10.0.0.1/32", "10.9.0.0/16", "10.0.0.0/32"]]

    asyncio.run(scenario())


def test_an_answer_inside_another_wire_is_refused():
    """An endpoint that does not honour what was excluded gets its connection back."""

    async def scenario():
        endpoint = Endpoint(("10.0.0.1/32", "10.0.0.0/32"), ("10.9.1.1/32", "10.8.0.1/32"))
        handler = of(endpoint)
        await handler.request(Call(), ask(0))
        with pytest.raises(Conflict, match=r"10\.9\.1\.1/32 .* 10\.9\.0\.0/16"):
            await handler.request(Call(), ask(1))
        assert endpoint.closed == ["nsc-1"]

    asyncio.run(scenario())


def test_a_closed_wire_excludes_nothing():
    """Its addresses are free for the next one."""

    async def scenario():
        endpoint = Endpoint(*[("10.0.0.1/32", "10.0.0.0/32")] * 2)
        handler = of(endpoint)
        await handler.close(Call(), await handler.request(Call(), ask(0)))
        await handler.request(Call(), ask(1))
        assert endpoint.excluded == [[], []]

    asyncio.run(scenario())
