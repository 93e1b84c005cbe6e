"""Chains: lists of elements that are handlers."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call
from nsmesh.core.element import Element, OrderError, chain
from nsmesh.core.errors import Unimplemented
from nsmesh.core.probes import Check, Count, Inject
from nsmesh.core.virtual import run
from nsmesh.model.messages import (
    Connection,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceQuery,
    NetworkServiceRequest,
    NetworkServiceResponse,
)


class Outer(Element):
    pass


class Inner(Element):
    after = ("Outer",)


class AfterBegin(Element):
    after = ("Begin",)


def test_verbs_pass_from_outside_in():
    """Each verb meets the elements in their order; an empty chain is its end."""

    async def main():
        seen = []
        handler = chain(
            Check("request", lambda call, message: seen.append("a")),
            Check("request", lambda call, message: seen.append("b")),
            Check("close", lambda call, message: seen.append("c")),
        )
        answer = await handler.request(Call(), NetworkServiceRequest(connection=Connection(id="x")))
        assert answer.id == "x"
        await handler.close(Call(), answer)
        assert seen == ["a", "b", "c"]
        assert (await chain().register(Call(), NetworkService(name="s"))).name == "s"
        assert [item async for item in chain().find(Call(), NetworkServiceQuery())] == []
        await chain().unregister(Call(), NetworkService(name="s"))
        with pytest.raises(Unimplemented):
            async for _ in chain().monitor(Call(), MonitorScopeSelector()):
                pass

    run(main())


def test_order_is_checked_when_a_chain_is_built():
    """Standing in front of what ``after`` names is an error; the absence of what it names is none."""
    chain(Outer(), Inner())
    chain(Inner())
    with pytest.raises(OrderError, match="Inner must stand after Outer"):
        chain(Inner(), Outer())


def test_order_counts_subclasses():
    """``after`` means a class and those derived from it: a client's Begin is a Begin."""
    with pytest.raises(OrderError, match="AfterBegin must stand after Begin"):
        chain(AfterBegin(), BeginClient())
    chain(BeginClient(), AfterBegin(), Begin())


def test_running_enters_outside_in_and_leaves_inside_out():
    """Elements are held while the chain runs, and the scope outlives them all."""

    async def main():
        events = []

        class Held(Element):
            def __init__(self, name):
                self.name = name

            @asynccontextmanager
            async def running(self):
                assert self.scope.running
                events.append(f"+{self.name}")
                try:
                    yield self
                finally:
                    assert self.scope.running
                    events.append(f"-{self.name}")

        handler = chain(Held("a"), Held("b"))
        async with handler.running():
            handler.scope.spawn(asyncio.sleep(10), name="x")
            events.append("run")
        assert events == ["+a", "+b", "run", "-b", "-a"]
        assert handler.scope.tasks == 0

    run(main())


def test_probes_inject_and_count():
    """Inject raises as often as told, in front or behind; Count tells what passed from what succeeded."""

    async def main():
        count = Count()
        handler = chain(count, Inject(lambda: Unimplemented("x"), "request", "find", times=1))
        with pytest.raises(Unimplemented):
            await handler.request(Call(), NetworkServiceRequest())
        await handler.request(Call(), NetworkServiceRequest())
        assert (count.seen["request"], count.done["request"]) == (2, 1)
        inner = Count()
        behind = chain(Inject(lambda: Unimplemented("x"), "close", behind=True), inner)
        with pytest.raises(Unimplemented):
            await behind.close(Call(), Connection())
        assert inner.done["close"] == 1

    run(main())


def test_count_counts_what_is_found():
    """A query is seen once, each answer is done once."""

    class Found(Element):
        async def find(self, call, query, next):
            for name in ("a", "b"):
                yield NetworkServiceResponse(network_service=NetworkService(name=name))

    async def main():
        count = Count()
        found = [item async for item in chain(count, Found()).find(Call(), NetworkServiceQuery())]
        assert len(found) == 2
        assert (count.seen["find"], count.done["find"]) == (1, 2)

    run(main())
