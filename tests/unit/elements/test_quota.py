"""No identity has more connections at a manager than it may."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Exhausted, Unavailable
from nsmesh.elements.quota import REFUSALS, Quota
from nsmesh.model.messages import Connection, NetworkServiceRequest

NSC, OTHER = Peer(spiffe_id="spiffe://td/nsc"), Peer(spiffe_id="spiffe://td/other")


class Next(Element):
    """The rest of the chain, which may fail."""

    broken = False

    async def request(self, call, request, next):
        if self.broken:
            raise Unavailable("the next hop is away")
        return request.connection


def ask(number):
    return NetworkServiceRequest(connection=Connection(id=f"c-{number}"))


def of(most):
    quota, rest = Quota(most), Next()
    return quota, rest, chain(Begin(), quota, rest)


def test_one_identity_is_refused_and_others_are_served():
    """Who has as many as it may gets no more, is told who and how many; refreshes and others go on."""

    async def scenario():
        quota, _, handler = of(2)
        before = REFUSALS.values.get((), 0)
        async with handler.running():
            for number in (0, 1, 0, 1):
                await handler.request(Call(peer=NSC), ask(number))
            with pytest.raises(Exhausted, match="spiffe://td/nsc has 2 connections") as error:
                await handler.request(Call(peer=NSC), ask(2))
            assert "NSM_MAX_CONNECTIONS_PER_IDENTITY" in error.value.remedy
            await handler.request(Call(peer=OTHER), ask(3))
            await handler.request(Call(peer=Peer(in_process=True)), ask(4))
            await handler.close(Call(peer=NSC), Connection(id="c-0"))
            await handler.request(Call(peer=NSC), ask(2))
            assert sorted(quota.keeps()) == ["c-1", "c-2", "c-3"]
        assert REFUSALS.values.get((), 0) == before + 1

    asyncio.run(scenario())


def test_what_failed_counts_no_longer():
    """A Request that a later hop fails leaves nothing; a failed refresh keeps what there was."""

    async def scenario():
        quota, rest, handler = of(1)
        async with handler.running():
            rest.broken = True
            for number in range(3):
                with pytest.raises(Unavailable):
                    await handler.request(Call(peer=NSC), ask(number))
            assert not quota.keeps()
            rest.broken = False
            await handler.request(Call(peer=NSC), ask(1))
            rest.broken = True
            with pytest.raises(Unavailable):
                await handler.request(Call(peer=NSC), ask(1))
            with pytest.raises(Exhausted):
                await handler.request(Call(peer=NSC), ask(2))

    asyncio.run(scenario())


def test_many_at_once_are_counted():
    """Requests that come together get no more than those that come one by one."""

    async def scenario():
        _, _, handler = of(5)
        async with handler.running():
            calls = (handler.request(Call(peer=NSC), ask(number)) for number in range(20))
            answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(one, Exhausted) for one in answers) == 15

    asyncio.run(scenario())


def test_no_quota():
    """Zero refuses nobody, and counts nothing."""

    async def scenario():
        quota, _, handler = of(0)
        async with handler.running():
            for number in range(50):
                await handler.request(Call(peer=NSC), ask(number))
            assert not quota.keeps()

    asyncio.run(scenario())
