"""SubnetIpam: one address in a common network; no two neighbours have one address, and none is lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Exhausted, Invalid, Refused
from nsmesh.elements.subnet_ipam import ADDRESSES, SubnetIpam
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.vlan import parse_subnets

DOMAINS = {"finance": 100, "books": 100, "hr": 200}


class Refuses(Element):
    """Refuses while it is told to."""

    refuses = False

    async def request(self, call, request, next):
        """Refuse or answer."""
        if self.refuses:
            raise Refused("no")
        return request.connection


def made(*networks):
    ipam, end = SubnetIpam(parse_subnets(networks), DOMAINS.__getitem__), Refuses()
    return ipam, end, chain(Begin(), ipam, end)


async def ask(server, name, service="finance", **context):
    request = NetworkServiceRequest(connection=Connection(id=name, network_service=service))
    for field, values in context.items():
        getattr(request.connection.context.ip_context, field).extend(values)
    return await server.request(Call(), request)


def addresses(connection):
    return list(connection.context.ip_context.src_ip_addrs)


def test_neighbours_share_a_network():
    """One address of each family with the network's length; the endpoint has none, and no routes."""

    async def main():
        _, _, server = made("172.10.0.0/24", "2001:db8::/64")
        first = await ask(server, "a")
        assert addresses(first) == ["172.10.0.1/24", "2001:db8::1/64"]
        ip = first.context.ip_context
        assert [len(field) for field in (ip.dst_ip_addrs, ip.src_routes, ip.dst_routes)] == [0, 0, 0]
        assert addresses(await ask(server, "b", "books")) == ["172.10.0.2/24", "2001:db8::2/64"]
        assert addresses(await ask(server, "c", "hr")) == ["172.10.0.1/24", "2001:db8::1/64"]
        assert addresses(await server.request(Call(), NetworkServiceRequest(connection=first))) == addresses(
            first
        )

    asyncio.run(main())


def test_what_a_client_brings_along_is_kept():
    """If it is free: a restarted endpoint gives the same. Somebody else's goes, what is no pool's stays."""

    async def main():
        _, _, server = made("172.10.0.0/24")
        kept = await ask(server, "a", src_ip_addrs=["172.10.0.9/24", "192.0.2.1/32", "nonsense"])
        assert addresses(kept) == ["192.0.2.1/32", "nonsense", "172.10.0.9/24"]
        assert addresses(await ask(server, "b", src_ip_addrs=["172.10.0.9/24"])) == ["172.10.0.1/24"]

    asyncio.run(main())


def test_excluded_prefixes_are_not_given():
    """Nor kept by a refresh that excludes what is held; what is no prefix is refused."""

    async def main():
        ipam, _, server = made("172.10.0.0/30")
        first = await ask(server, "a", excluded_prefixes=["172.10.0.1/32"])
        assert addresses(first) == ["172.10.0.2/30"]
        first.context.ip_context.excluded_prefixes[:] = ["172.10.0.2/32"]
        again = await server.request(Call(), NetworkServiceRequest(connection=first))
        assert addresses(again) == ["172.10.0.1/30"]
        with pytest.raises(Exhausted, match="no addresses for connection b"):
            await ask(server, "b", excluded_prefixes=["172.10.0.2/32"])
        with pytest.raises(Invalid, match="is no CIDR prefix"):
            await ask(server, "b", excluded_prefixes=["many"])
        assert set(ipam.keeps()) == {"a"}

    asyncio.run(main())


def test_a_failure_gives_back():
    """The address that was taken for it; the next one gets it."""

    async def main():
        ipam, end, server = made("172.10.0.0/24")
        end.refuses = True
        with pytest.raises(Refused):
            await ask(server, "a")
        end.refuses = False
        assert not ipam.keeps()
        assert addresses(await ask(server, "b")) == ["172.10.0.1/24"]

    asyncio.run(main())


def test_a_restart_goes_on_where_it_was():
    """What the state remembers is taken again, if the network is still there."""

    async def main():
        ipam, _, server = made("172.10.0.0/24")
        call = Call()
        call.state.set(ADDRESSES, ("172.10.0.1/32", "10.9.9.9/32"))
        await ipam.resume(call, Connection(id="a", network_service="finance"))
        assert addresses(await ask(server, "b")) == ["172.10.0.2/24"]
        await ipam.forget("a", call.state)
        assert addresses(await ask(server, "c")) == ["172.10.0.1/24"]

    asyncio.run(main())


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(list(DOMAINS)), st.booleans()), max_size=20
    )
)
def test_no_two_neighbours_have_one_address(steps):
    """In any order of requests and closes, in no domain; when all are closed, all are free again."""

    async def main():
        ipam, _, server = made("172.10.0.0/28")
        living = {}
        for name, service, closes in steps:
            if closes and name in living:
                await server.close(Call(), living.pop(name))
            elif not closes and (name not in living or living[name].network_service == service):
                living[name] = await ask(server, name, service)
            held = [(DOMAINS[one.network_service], addresses(one)[0]) for one in living.values()]
            assert len(set(held)) == len(held)
        for connection in living.values():
            await server.close(Call(), connection)
        assert not ipam.keeps()
        assert addresses(await ask(server, "z")) == ["172.10.0.1/28"]

    asyncio.run(main())
