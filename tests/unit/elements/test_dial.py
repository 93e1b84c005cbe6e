"""Dial and Connect: where a call goes, what is remembered of it, and what a Close does there."""

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Key, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import (
    Internal,
    Invalid,
    NotFound,
    Refused,
    TimedOut,
    Unanswered,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from nsmesh.core.life import OWN, REACHED
from nsmesh.core.peering import DIALLED, HOP, NEXT_HOP, TARGET, Dialled, handed_over, peer_of
from nsmesh.core.tokens import OUTGOING
from nsmesh.core.virtual import run
from nsmesh.elements.connect import Connect
from nsmesh.elements.dial import Dial
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceQuery,
    NetworkServiceRequest,
    NetworkServiceResponse,
)

MARK: Key[int] = Key("mark")


class Remote:
    """A peer behind a URL: notes what it gets, and answers as told."""

    def __init__(self, url):
        self.url = url
        self.peer = Peer(spiffe_id=url)
        self.seen = []
        self.calls = []
        self.error = None
        self.close_error = None
        self.cut = 0
        self.then = lambda: None

    def cut_off(self):
        """End the connection in the middle of as many calls as were said."""
        if self.cut:
            self.cut -= 1
            self.then()
            raise Unanswered(f"{self.url} closed the connection")

    async def request(self, call, request):
        self.seen.append("request")
        self.calls.append(call)
        await asyncio.sleep(0)
        self.cut_off()
        if self.error is not None:
            raise self.error
        request.connection.network_service_endpoint_name = self.url
        return request.connection

    async def close(self, call, connection):
        self.seen.append("close")
        self.calls.append(call)
        self.cut_off()
        if self.close_error is not None:
            raise self.close_error

    async def monitor(self, call, selector):
        yield ConnectionEvent()

    async def register(self, call, entry):
        entry.payload = self.url
        return entry

    async def find(self, call, query):
        self.cut_off()
        yield NetworkServiceResponse(network_service=NetworkService(name=self.url))

    async def unregister(self, call, entry):
        self.seen.append("unregister")


class Book:
    """Peers by URL; who is crossed out does not answer, who is slow takes its time."""

    def __init__(self, *urls):
        self.peers = {url: Remote(url) for url in urls}
        self.gone = set()
        self.slow = {}
        self.dials = 0

    async def get(self, url):
        self.dials += 1
        await asyncio.sleep(self.slow.get(url, 0))
        if url in self.gone:
            raise Unavailable(f"nobody at {url}")
        return self.peers[url]

    def seen(self):
        return {url: peer.seen for url, peer in self.peers.items()}


def ask(name="x"):
    return NetworkServiceRequest(connection=Connection(id=name))


def to(url, call=None):
    return (call or Call()).put(TARGET, url)


def scenario(body, *between, **options):
    async def main():
        book, begin = Book("a", "b"), BeginClient()
        handler = chain(begin, Dial(book, **options), *between, end=Dialled())
        async with handler.running():
            await body(book, begin, handler)

    run(main())


def test_request_and_close_go_to_the_target():
    """The Close finds the place by itself; a fixed target needs no word in the call."""

    async def body(book, begin, handler):
        answer = await handler.request(to("a"), ask())
        assert answer.network_service_endpoint_name == "a"
        await handler.close(Call(), answer)
        assert book.seen() == {"a": ["request", "close"], "b": []}

    scenario(body)

    async def fixed(book, begin, handler):
        await handler.request(Call(), ask())
        assert book.seen()["b"] == ["request"]

    scenario(fixed, target="b")


def test_a_rerequest_goes_to_where_the_connection_lives():
    """Without any word about a target the remembered one counts."""

    async def body(book, begin, handler):
        await handler.request(to("a"), ask())
        await begin.life("x").rerequest()
        assert book.seen() == {"a": ["request", "request"], "b": []}

    scenario(body)


def test_a_moved_target_is_closed_at_the_old_place_first():
    """Also when the old peer is gone, and also when the new one does not answer."""

    async def body(book, begin, handler):
        await handler.request(to("a"), ask())
        answer = await handler.request(to("b"), ask())
        assert answer.network_service_endpoint_name == "b"
        assert book.seen() == {"a": ["request", "close"], "b": ["request"]}
        book.gone.add("b")
        await handler.request(to("a"), ask())
        book.gone.add("b")
        with pytest.raises(Unavailable):
            await handler.request(to("b"), ask())
        assert book.seen()["a"] == ["request", "close", "request", "close"]
        await handler.close(Call(), answer)
        assert book.seen()["a"] == ["request", "close", "request", "close"]

    scenario(body)


def test_a_refusing_old_place_does_not_stop_the_move():
    """What the old peer says to its Close is only logged."""

    async def body(book, begin, handler):
        await handler.request(to("a"), ask())
        book.peers["a"].close_error = Refused("no")
        await handler.request(to("b"), ask())
        assert book.seen()["b"] == ["request"]

    scenario(body)


def test_a_close_is_well_when_nobody_is_there():
    """A refused dial and a connection that broke are a Close; any other error is the caller's to hear."""

    async def body(book, begin, handler):
        for name in ("dial", "broken"):
            await handler.request(to("a"), ask(name))
        book.gone.add("a")
        await handler.close(Call(), Connection(id="dial"))
        book.gone.clear()
        book.peers["a"].close_error = Unavailable("broke")
        await handler.close(Call(), Connection(id="broken"))
        await handler.request(to("a"), ask())
        book.peers["a"].close_error = Unauthorized("not you")
        with pytest.raises(Unauthorized):
            await handler.close(Call(), Connection(id="x"))

    scenario(body)


def test_the_dial_is_bounded():
    """By its own limit and by the deadline of the call; the error says where and what to do."""

    async def body(book, begin, handler):
        loop = asyncio.get_running_loop()
        book.slow["a"] = 100
        with pytest.raises(Unavailable, match=r"nobody at a answered a dial in 0.75 s - check"):
            await handler.request(to("a"), ask())
        assert loop.time() == 0.75
        with pytest.raises(Unavailable):
            await handler.request(to("a", Call().within(0.25)), ask())
        assert loop.time() == 1.0
        with pytest.raises(TimedOut):
            await handler.request(to("a", Call(deadline=loop.time() - 1)), ask())

    scenario(body, timeout=0.75)


@pytest.mark.parametrize(
    ("error", "verbs"),
    [
        (NotFound("x"), ["request"]),
        (Invalid("x"), ["request"]),
        (Unavailable("x"), ["request", "close"]),
        (TimedOut("x"), ["request", "close"]),
        (Internal("x"), ["request", "close"]),
    ],
)
def test_the_undo_asks_only_those_who_may_hold_something(error, verbs):
    """Who refused a first Request needs no Close; of whom we do not know what it did gets one."""

    async def body(book, begin, handler):
        book.peers["a"].error = error
        with pytest.raises(type(error)):
            await handler.request(to("a"), ask())
        assert book.seen()["a"] == verbs

    scenario(body)


def test_an_answer_that_is_refused_here_is_undone_there():
    """When an element behind the dial rejects what came back, the peer gets a Close."""

    class Reject(Element):
        async def request(self, call, request, next):
            await next.request(call, request)
            raise Unauthorized("the answer's path is not in order")

    async def body(book, begin, handler):
        with pytest.raises(Unauthorized):
            await handler.request(to("a"), ask())
        assert book.seen()["a"] == ["request", "close"]

    scenario(body, Reject())


def test_an_undo_of_what_got_nowhere_dials_nobody():
    """A first Request whose dial failed is not dialled again for its Close."""

    async def body(book, begin, handler):
        book.gone.add("a")
        with pytest.raises(Unavailable):
            await handler.request(to("a"), ask())
        assert book.dials == 1

    scenario(body)


def test_without_any_target_it_says_so():
    """Nobody said where to go: a fault of the chain, and the text says what is missing."""

    async def body(book, begin, handler):
        with pytest.raises(Internal, match="where this call shall go"):
            await handler.request(Call(), ask())

    scenario(body)


def test_the_other_verbs_go_to_the_target_too():
    """Registrations, queries and monitors."""

    async def body(book, begin, handler):
        assert (await handler.register(Call(), NetworkService(name="s"))).payload == "b"
        found = [item async for item in handler.find(Call(), NetworkServiceQuery())]
        assert found[0].network_service.name == "b"
        assert [event async for event in handler.monitor(to("a"), MonitorScopeSelector())] == [
            ConnectionEvent()
        ]
        await handler.unregister(Call(), NetworkService(name="s"))
        assert book.seen()["b"] == ["unregister"]

    scenario(body, target="b")


def test_a_close_without_begin_goes_to_the_fixed_target():
    """A chain that remembers nothing still reaches its one peer."""

    async def main():
        book = Book("a")
        await chain(Dial(book, target="a"), end=Dialled()).close(Call(), Connection(id="x"))
        assert book.seen() == {"a": ["close"]}

    run(main())


def test_a_remote_peer_sees_the_call_a_role_of_this_process_a_new_one():
    """In memory neither our headers, nor our state, nor our route, nor our privileges arrive."""
    call = (
        Call(deadline=7.0, metadata=(("a", "b"),))
        .put(TARGET, "x")
        .put(OUTGOING, (("t", "1"),))
        .put(OWN, value=True)
        .put(MARK, 5)
    )
    remote = Remote("r")
    assert handed_over(call, remote) is call
    assert peer_of(remote).spiffe_id == "r"
    there = handed_over(call, chain())
    assert there.peer.in_process
    assert there.deadline == 7.0
    assert there.metadata == ()
    assert there.state is not call.state
    assert dict(there.values) == {MARK: 5}


def test_messages_in_memory_are_copies():
    """What a role of this process does with its message, the elements in front do not see."""

    class Spoil(Element):
        async def request(self, call, request, next):
            answer = copy_of(request.connection)
            request.connection.network_service = "spoiled"
            return answer

    class Look(Element):
        async def request(self, call, request, next):
            answer = await next.request(call, request)
            assert request.connection.network_service == ""
            return answer

    async def main():
        await chain(Look(), Dial(target=chain(Spoil())), end=Dialled()).request(Call(), ask())

    run(main())


def test_an_end_without_a_dial_says_so():
    """``Dialled`` alone goes nowhere."""

    async def main():
        with pytest.raises(Internal, match="nowhere to send"):
            await Dialled().request(Call(), ask())

    run(main())


class Keep(Element):
    """Keeps the state and the request that passed here, and what was reached when the answer came back."""

    def __init__(self):
        self.request_seen = None
        self.reached = None
        self.state = None

    async def request(self, call, request, next):
        self.state = call.state
        answer = await next.request(call, request)
        self.reached = call.state.get(REACHED)
        self.request_seen = request
        return answer


def test_connect_remembers_what_was_reached():
    """NEXT_HOP, and REACHED until it was granted, are in the server half's state; each half has its own."""

    async def main():
        book, keep, inner = Book("a"), Keep(), Keep()
        onward = chain(Begin(), inner, Dial(book), end=Dialled())
        server = chain(Begin(), keep, Connect(onward))
        async with onward.running(), server.running():
            await server.request(to("a", Call(metadata=(("h", "1"),))), ask())
            assert keep.state.get(NEXT_HOP) is book.peers["a"]
            assert keep.reached.network_service_endpoint_name == "a"
            assert keep.state.get(REACHED) is None
            assert keep.request_seen.connection.network_service_endpoint_name == ""
            assert inner.state is not keep.state
            assert inner.state.get(NEXT_HOP) is book.peers["a"]
            call = book.peers["a"].calls[0]
            assert call.metadata == ()
            assert call.get(HOP) is not None
            assert call.get(DIALLED) is book.peers["a"]
            await server.close(Call(), Connection(id="x"))
            assert book.seen() == {"a": ["request", "close"]}

    run(main())


def test_connect_to_a_role_without_a_dial_follows_that_role():
    """A client half that is the next hop itself is the one to follow."""

    async def main():
        keep, role = Keep(), chain()
        server = chain(Begin(), keep, Connect(role))
        await server.request(Call(), ask())
        assert keep.state.get(NEXT_HOP) is role

    run(main())


def test_an_address_where_nobody_answers_is_named():
    """Who chose it can tell that nothing was reached from what somebody behind it answered."""

    async def main():
        book = Book("unix:///there")
        book.gone.add("unix:///there")
        handler = chain(Begin(), Dial(book), end=Dialled())
        with pytest.raises(Unreachable) as caught:
            await handler.request(Call().put(TARGET, "unix:///there"), ask())
        assert caught.value.target == "unix:///there"

    run(main())


def test_a_call_whose_answer_is_cut_off_is_made_again():
    """Request, Close and Find go out again on a new connection, as they were; elements behind see each.

    What a first Request may have made is closed in front of the next try.
    """

    class Spoils(Element):
        """Writes into what it passes on, as SendFdClient and ClientToken do."""

        async def request(self, call, request, next):
            assert not request.connection.labels
            request.connection.labels["spoilt"] = "yes"
            return await next.request(call, request)

    async def body(book, begin, handler):
        peer = book.peers["a"]
        peer.cut = 2
        answer = await handler.request(to("a"), ask())
        assert (peer.seen, book.dials) == (["request", "close", "close", "request"], 3)
        peer.cut = 1
        await handler.close(Call(), answer)
        assert peer.seen[4:] == ["close"] * 2
        peer.cut = 2
        query = NetworkServiceQuery()
        assert [found.network_service.name async for found in handler.find(to("a"), query)] == ["a"]

    scenario(body, Spoils())


def test_a_call_is_not_made_again_for_ever_nor_where_nobody_is():
    """After three tries, or when the dial is refused, the caller is told how the last call ended."""

    async def body(book, begin, handler):
        book.peers["a"].cut = 9
        with pytest.raises(Unanswered):
            await handler.request(to("a"), ask())
        assert book.peers["a"].seen == ["request", "close", "close"] + ["close"] * 3
        book.peers["b"].cut = 9
        book.peers["b"].then = lambda: book.gone.add("b")
        with pytest.raises(Unanswered):
            await handler.request(to("b"), ask("y"))
        assert book.peers["b"].seen == ["request"]

    scenario(body)


def test_who_is_to_come_is_waited_for():
    """Where a socket is held for somebody, the dial begins again; where nobody is to come it does not."""

    async def body(book, begin, handler):
        awaited = iter([True, True, False])
        book.is_awaited = lambda _url: next(awaited, False)
        book.slow["a"] = 0.5
        with pytest.raises(Unreachable):
            await handler.monitor(to("a"), MonitorScopeSelector()).__anext__()
        assert book.dials == 4
        book.is_awaited = lambda _url: True
        asyncio.get_running_loop().call_later(0.35, book.slow.clear)
        await handler.request(to("a"), ask())
        assert book.dials == 9
        book.is_awaited = lambda _url: False
        book.gone.add("b")
        with pytest.raises(Unreachable):
            await handler.monitor(to("b"), MonitorScopeSelector()).__anext__()
        assert book.dials == 10

    scenario(body, timeout=0.1)
