"""A Begin that passes reselects on: one Request ends and begins anew at the next hop, without a Close."""

import asyncio

import pytest
from test_begin import Far, ask, scenario, verbs

from nsmesh.core.begin import Begin
from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Refused, TimedOut, Unauthorized
from nsmesh.core.life import DENIED, HASTE
from nsmesh.core.virtual import run
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, State


class Names(Element):
    """An end that names endpoint and mechanism, and notes what it was asked for."""

    def __init__(self):
        self.asked = []
        self.closed = []

    async def request(self, call, request, next):
        self.asked.append(copy_of(request.connection))
        answer = copy_of(request.connection)
        answer.network_service_endpoint_name = f"nse{len(self.asked)}"
        answer.mechanism.type = "KERNEL"
        return answer

    async def close(self, call, connection, next):
        self.closed.append(copy_of(connection))


class Guard(Element):
    """Refuses whom it is told to, as who checks tokens does."""

    refuses = False

    def _check(self, call):
        if self.refuses:
            call.state.set(DENIED, value=True)
            raise Unauthorized("not yours")

    async def request(self, call, request, next):
        self._check(call)
        return await next.request(call, request)

    async def close(self, call, connection, next):
        self._check(call)
        await next.close(call, connection)


def test_a_reselect_is_one_request():
    """No Close, the state of the connection, an open choice of endpoint and mechanism; the answer is UP."""

    async def main():
        begin, far, names = BeginClient(passes_reselects=True), Far(), Names()
        handler = chain(begin, far, names)
        async with handler.running():
            await handler.request(Call(), ask())
            answer = await begin.life("x").rerequest(reselect=True)
            assert verbs(far) == ["request", "request"]
            wanted = names.asked[-1]
            assert wanted.state == State.RESELECT_REQUESTED
            assert wanted.network_service_endpoint_name == ""
            assert not wanted.HasField("mechanism")
            assert far.states[0] is far.states[1]
            assert (answer.network_service_endpoint_name, answer.state) == ("nse2", State.UP)
            await begin.life("x").rerequest()
            assert names.asked[-1].network_service_endpoint_name == "nse2"
            assert names.asked[-1].state == State.UP

    run(main())


def test_a_refused_reselect_ends_the_connection():
    """The next hop may have ended it: it is closed there, the life goes on without, and can ask again."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        life = begin.life("x")
        far.failing = 1
        with pytest.raises(Refused):
            await life.rerequest(reselect=True)
        assert verbs(far) == ["request", "request", "close"]
        assert (life.connection, far.held) == (None, set())
        assert begin.life("x") is life
        far.failing = 1
        with pytest.raises(Refused):
            await life.rerequest(reselect=True)
        assert (await life.rerequest()).id == "x"
        assert far.held == {"x"}

    scenario(body, BeginClient(passes_reselects=True))


def test_the_close_of_a_refused_reselect_knows_what_it_closes():
    """It names the connection as it was granted, endpoint and mechanism, and not as it was asked for."""

    async def main():
        begin, names, far = Begin(passes_reselects=True), Names(), Far()
        handler = chain(begin, far, names)
        async with handler.running():
            await handler.request(Call(), ask())
            far.failing = 1
            with pytest.raises(Refused):
                await handler.request(Call(), ask(state=State.RESELECT_REQUESTED))
            [closed] = names.closed
            assert (closed.network_service_endpoint_name, closed.mechanism.type) == ("nse1", "KERNEL")
            assert begin.life("x") is None

    run(main())


def test_a_close_that_fails_after_a_refused_reselect_is_a_note():
    """Who asked hears why it was refused; nothing is kept of the connection, anywhere in the chain."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        life = begin.life("x")
        far.failing = far.failing_close = 1
        with pytest.raises(Refused, match="told to fail") as caught:
            await life.rerequest(reselect=True)
        assert "its undo failed: told to fail to close" in caught.value.__notes__[0]
        assert (life.connection, begin.orphans()) == (None, [])
        await life.rerequest()
        await handler.close(Call(), Connection(id="x"))
        assert far.held == set()

    scenario(body, BeginClient(passes_reselects=True))


def test_who_is_denied_ends_nothing():
    """A reselect, refresh or Close in another's name leaves the connection, and its own later end, alone."""

    async def main():
        begin, guard, far = Begin(passes_reselects=True), Guard(), Far()
        handler = chain(begin, guard, far)
        async with handler.running():
            await handler.request(Call(), ask())
            known = begin.life("x").connection
            guard.refuses = True
            for state in (State.RESELECT_REQUESTED, State.UP):
                with pytest.raises(Unauthorized):
                    await handler.request(Call(), ask(state=state))
            with pytest.raises(Unauthorized):
                await handler.close(Call(), Connection(id="x"))
            assert begin.life("x").connection == known
            guard.refuses = False
            far.failing = 1
            with pytest.raises(Refused):
                await handler.request(Call(), ask(state=State.RESELECT_REQUESTED))
            assert begin.life("x") is None
            await handler.request(Call(), ask())
            guard.refuses = True
            with pytest.raises(Unauthorized):
                await handler.request(Call(), ask())
            guard.refuses = False
            await begin.life("x").close()
            assert (begin.life("x"), far.held) == (None, set())

    run(main())


class Silent(Far):
    """A next hop that is heard of no more."""

    silent = False

    async def request(self, call, request, next):
        if self.silent:
            await asyncio.sleep(1.0)
            raise TimedOut("no answer in time")
        return await super().request(call, request, next)

    async def close(self, call, connection, next):
        if self.silent:
            await asyncio.sleep(call.remaining())
            raise TimedOut("no answer in time")
        await super().close(call, connection, next)


def test_a_silent_next_hop_has_no_long_time_for_the_close():
    """Where no answer came in time, the error does not wait for a second silence."""

    async def main():
        begin, far = BeginClient(passes_reselects=True), Silent()
        handler = chain(begin, far)
        async with handler.running():
            await handler.request(Call(), ask())
            life, loop = begin.life("x"), asyncio.get_running_loop()
            far.silent = True
            began = loop.time()
            with pytest.raises(TimedOut):
                await life.rerequest(reselect=True)
            assert loop.time() - began == pytest.approx(1.0 + HASTE)
            assert (life.up, begin.life("x")) == (False, life)

    run(main())


def test_a_peer_that_closes_first_is_served():
    """A Close and then the reselecting Request, as the field's clients do it: an end and a first Request."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        await handler.close(Call(), Connection(id="x"))
        answer = await handler.request(Call(), ask(state=State.RESELECT_REQUESTED))
        assert verbs(far) == ["request", "close", "request"]
        assert answer.state == State.UP
        assert far.states[0] is not far.states[1]

    scenario(body, Begin(passes_reselects=True))


def test_who_does_not_know_it_serves_it():
    """A reselecting Request of a connection that is not known, as after a restart, is a first one."""

    async def body(begin, far, handler):
        answer = await handler.request(Call(), ask(state=State.RESELECT_REQUESTED))
        assert (answer.state, verbs(far)) == (State.UP, ["request"])
        far.failing = 1
        with pytest.raises(Refused):
            await handler.request(Call(), ask("y", state=State.RESELECT_REQUESTED))
        assert begin.life("y") is None

    scenario(body, Begin(passes_reselects=True))
