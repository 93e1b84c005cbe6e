"""Authorize and AuthorizeClient in chains of their own kind."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core import virtual
from nsmesh.core.begin import Begin
from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Unauthorized
from nsmesh.core.life import LIFE
from nsmesh.core.peering import Dialled
from nsmesh.core.probes import Count
from nsmesh.core.tokens import OUTGOING, token_headers
from nsmesh.elements.authorize import Authorize, AuthorizeClient
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.update_path import UpdatePath
from nsmesh.elements.update_token import UpdateToken
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment, State
from nsmesh.model.times import timestamp
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.policy import SERVER_POLICIES
from nsmesh.security.svid import SvidSource
from nsmesh.security.token import TokenMinter

CLOCK = virtual.VirtualClock()


class Role:
    """One identity: its SVID, its tokens, and how it looks as a peer."""

    def __init__(self, ca, name, ttl=3600):
        self.svid = ca.issue(f"spiffe://td/{name}", ttl)
        self.tokens = TokenMinter(SvidSource(self.svid, [ca.bundle()], clock=CLOCK), clock=CLOCK)
        self.peer = Peer(spiffe_id=self.svid.spiffe_id, certificate=self.svid.chain[0])


class Remote:
    """A chain behind a network, as its caller sees it: it has a peer, and reads headers."""

    def __init__(self, handler, role, caller):
        self.handler, self.peer, self.caller = handler, role.peer, caller

    def _call(self, call):
        return Call(deadline=call.deadline, peer=self.caller.peer, metadata=call.get(OUTGOING) or ())

    async def request(self, call, request):
        return await self.handler.request(self._call(call), request)

    async def close(self, call, connection):
        await self.handler.close(self._call(call), connection)


class Keep(Element):
    """Keeps the life of the last connection."""

    life = None

    async def request(self, call, request, next):
        self.life = call.state.get(LIFE)
        return await next.request(call, request)


@pytest.fixture
def world(tmp_path):
    class World:
        def __init__(self):
            class At:
                def now(self):
                    return virtual.EPOCH

                def monotonic(self):
                    return 0.0

            ca = CertificateAuthority.open(tmp_path, "td", clock=At())
            self.nsc, self.nsmgr, self.other = (Role(ca, name) for name in ("nsc", "nsmgr", "other"))
            self.count, self.keep = Count(), Keep()

        def server(self, name="nsmgr", *own, passes=False):
            return chain(
                UpdatePath(name),
                Begin(passes_reselects=passes),
                UpdateToken(self.nsmgr.tokens),
                Authorize((*SERVER_POLICIES, *own)),
                self.keep,
                self.count,
                clock=CLOCK,
            )

        def client(self, server, *, seen_as=None, name="nsc"):
            return chain(
                UpdatePath(name),
                BeginClient(),
                Dial(target=Remote(server, seen_as or self.nsmgr, self.nsc)),
                ClientToken(self.nsc.tokens),
                AuthorizeClient(),
                end=Dialled(),
                clock=CLOCK,
            )

    return World()


def first(role, audience=None):
    """Return call and message of a correct first Request."""
    headers = token_headers(*role.tokens.mint(audience.peer)) if audience else ()
    segment = PathSegment(name="nsc", id="nsc-0")
    connection = Connection(id="nsc-0", path=Path(path_segments=[segment]))
    return Call(peer=role.peer, metadata=headers), NetworkServiceRequest(connection=connection)


def test_a_correct_client_and_server_agree(world):
    """Request, refresh and Close pass the policies of both halves."""

    async def main():
        server = world.server()
        async with server.running(), world.client(server).running() as client:
            request = first(world.nsc)[1]
            connection = await client.request(Call(peer=Peer(in_process=True)), request)
            assert [one.name for one in connection.path.path_segments] == ["nsc", "nsmgr"]
            again = NetworkServiceRequest(connection=connection)
            await client.request(Call(peer=Peer(in_process=True)), again)
            await client.close(Call(peer=Peer(in_process=True)), connection)
        assert world.count.done == {"request": 2, "close": 1}

    virtual.run(main())


def test_a_policy_of_the_users_is_asked_of_each_call(world, tmp_path):
    """Beside the built-in rules a file in Rego decides: others than it names learn which file refused."""
    pytest.importorskip("regopy")
    file = tmp_path / "only_nsc.rego"
    file.write_text(
        "package mine\n\ndefault valid := false\n\n"
        "claims := found if [_, found, _] := io.jwt.decode(input.path_segments[input.index - 1].token)\n\n"
        'valid if claims.sub == "spiffe://td/nsc"\n'
    )

    async def main():
        async with world.server("nsmgr", str(file)).running() as server:
            call, request = first(world.nsc, world.nsmgr)
            await server.request(call, request)
            call, request = first(world.other, world.nsmgr)
            with pytest.raises(Unauthorized, match=r"only_nsc\.rego refused hop 0 .*spiffe://td/other"):
                await server.request(call, request)
        assert world.count.seen["request"] == 1

    virtual.run(main())


def test_a_server_refuses_before_it_does_anything(world):
    """No token, a token of somebody else, to somebody else: refused, and the rest of the chain not asked."""

    async def main():
        async with world.server().running() as server:
            call, request = first(world.nsc)
            with pytest.raises(Unauthorized, match=r"no sufficient privileges: tokens_valid .*nsc -> nsmgr"):
                await server.request(call, request)
            for sender, signer, audience in (
                (world.other, world.nsc, world.nsmgr),
                (world.nsc, world.nsc, world.other),
            ):
                call, request = first(signer, audience)
                with pytest.raises(Unauthorized):
                    await server.request(Call(peer=sender.peer, metadata=call.metadata), request)
        assert world.count.seen["request"] == 0

    virtual.run(main())


def test_equal_names_of_neighbours_are_refused(world):
    """A caller that has the server's own name stands at index 0 there: it has no segment before ours."""

    async def main():
        async with world.server("nsc").running() as server:
            call, request = first(world.nsc, world.nsmgr)
            with pytest.raises(Unauthorized, match=r"prev_token_signed.*no segment of the caller"):
                await server.request(call, request)

    virtual.run(main())


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("verb", ["close", "refresh", "reselect"])
def test_a_connection_listens_to_its_owner_alone(world, verb, passes):
    """Neither a stolen token nor a correct one of somebody else touches a connection; the owner closes it."""

    async def main():
        async with world.server(passes=passes).running() as server:
            call, request = first(world.nsc, world.nsmgr)
            connection = await server.request(call, request)
            stolen = Call(peer=world.other.peer, metadata=call.metadata)
            correct, _ = first(world.other, world.nsmgr)
            for attack, rule in ((stolen, "prev_token_signed"), (correct, "connection_owner")):
                again = NetworkServiceRequest(connection=connection)
                if verb == "reselect":
                    again.connection.state = State.RESELECT_REQUESTED
                strike = (
                    server.close(attack, connection) if verb == "close" else server.request(attack, again)
                )
                with pytest.raises(Unauthorized, match=f"no sufficient privileges: {rule} refused hop 0"):
                    await strike
            assert world.count.seen == {"request": 1}
            assert world.keep.life.connection is not None
            await server.request(call, NetworkServiceRequest(connection=connection))
            await server.close(call, connection)
        assert world.count.done == {"request": 2, "close": 1}

    virtual.run(main())


@pytest.mark.parametrize("brings", ["its own", "another's", "the old one", "nonsense"])
def test_a_close_brings_the_tokens_that_have_ended_meanwhile(world, brings):
    """The clock was set, or nobody refreshed: who is further in front proves anew that it is he."""

    async def main():
        server = world.server("fwd")
        nsc, nsmgr, other = world.nsc, world.nsmgr, world.other

        def path(front):
            mine = PathSegment(name="nsmgr", id="m-0")
            token, ends = front.tokens.mint(nsmgr.peer)
            first = PathSegment(name="nsc", id="c-0", token=token, expires=timestamp(ends))
            return Path(index=1, path_segments=[first, mine])

        def call():
            return Call(peer=nsmgr.peer, metadata=token_headers(*nsmgr.tokens.mint(nsmgr.peer)))

        asked = path(nsc)
        made = Connection(id="m-0", path=copy_of(asked))
        answer = await server.request(call(), NetworkServiceRequest(connection=made))
        await asyncio.sleep(1200)
        fresh = {"its own": path(nsc), "another's": path(other), "the old one": asked}.get(brings)
        if fresh is None:
            fresh = path(nsc)
            fresh.path_segments[0].token = "nonsense"
        answer.path.path_segments[0].CopyFrom(fresh.path_segments[0])
        if brings == "its own":
            await server.close(call(), answer)
        else:
            with pytest.raises(Unauthorized, match="tokens_expired"):
                await server.close(call(), answer)
        assert world.count.seen["close"] == (brings == "its own")

    virtual.run(main())


def test_an_owner_reselects(world):
    """A reselect by the owner closes and requests anew, and the connection stays his."""

    async def main():
        async with world.server().running() as server:
            call, request = first(world.nsc, world.nsmgr)
            connection = await server.request(call, request)
            again = NetworkServiceRequest(connection=connection)
            again.connection.state = State.RESELECT_REQUESTED
            connection = await server.request(call, again)
            with pytest.raises(Unauthorized, match=r"connection_owner"):
                await server.close(first(world.other, world.nsmgr)[0], connection)
        assert world.count.done == {"request": 2, "close": 1}

    virtual.run(main())


def test_roles_of_this_process_prove_nothing(world):
    """An in-process caller passes without any token."""

    async def main():
        async with world.server().running() as server:
            await server.request(Call(peer=Peer(in_process=True)), first(world.nsc)[1])

    virtual.run(main())


def test_an_automatic_close_needs_no_token(world):
    """When the tokens of a path have long expired, our own Close still goes through."""

    async def main():
        async with world.server().running() as server:
            call, request = first(world.nsc, world.nsmgr)
            await server.request(call, request)
            await asyncio.sleep(3000)
            await world.keep.life.close()
        assert world.count.done["close"] == 1

    virtual.run(main())


def test_a_client_refuses_an_answer_of_somebody_else(world):
    """A server whose certificate did not sign the next token is refused."""

    async def main():
        server = world.server()
        client = world.client(server, seen_as=world.other)
        async with server.running(), client.running():
            with pytest.raises(Unauthorized):
                await client.request(Call(peer=Peer(in_process=True)), first(world.nsc)[1])

    virtual.run(main())


def test_a_client_closes_what_it_refused(world):
    """The first answer of a server that adds no segment is refused and undone."""

    class Bare(Element):
        async def request(self, call, request, next):
            answer = await next.request(call, request)
            del answer.path.path_segments[1:]
            return answer

    async def main():
        count = Count()
        bare = chain(UpdatePath("nsmgr"), count, clock=CLOCK)
        async with bare.running():
            client = world.client(_Cut(bare))
            async with client.running():
                with pytest.raises(Unauthorized, match=r"next_token_signed.*no segment of its own"):
                    await client.request(Call(peer=Peer(in_process=True)), first(world.nsc)[1])
        assert (count.seen["request"], count.seen["close"]) == (1, 1)

    virtual.run(main())


class _Cut:
    """A peer that cuts all segments but the caller's out of its answers."""

    def __init__(self, handler):
        self.handler = handler

    async def request(self, call, request):
        answer = await self.handler.request(call, request)
        del answer.path.path_segments[1:]
        return answer

    async def close(self, call, connection):
        await self.handler.close(call, connection)


class Ahead(virtual.VirtualClock):
    """A clock that is some seconds ahead of the others."""

    def __init__(self, seconds):
        super().__init__(virtual.EPOCH + seconds)


@pytest.mark.parametrize("ahead", [-600.0, -5.0, 5.0, 599.0])
def test_clocks_may_differ_by_the_life_of_a_token(world, ahead):
    """A token is good while it has not ended by the clock of whoever reads it; it says not when it began."""

    async def main():
        server = world.server()
        server.scope.clock = Ahead(ahead)
        async with server.running(), world.client(server).running() as client:
            connection = await client.request(Call(peer=Peer(in_process=True)), first(world.nsc)[1])
            again = NetworkServiceRequest(connection=connection)
            await client.request(Call(peer=Peer(in_process=True)), again)
            await client.close(Call(peer=Peer(in_process=True)), connection)
        assert world.count.done == {"request": 2, "close": 1}

    virtual.run(main())


def test_a_clock_that_is_further_ahead_says_so(world):
    """There is no leeway, as in the field; the text says by whose clock the token has ended."""

    async def main():
        server = world.server()
        server.scope.clock = Ahead(605.0)
        async with server.running(), world.client(server).running() as client:
            with pytest.raises(
                Unauthorized, match=r"tokens_expired refused hop 0 .*expired 5 s ago by the clock here"
            ):
                await client.request(Call(peer=Peer(in_process=True)), first(world.nsc)[1])

    virtual.run(main())
