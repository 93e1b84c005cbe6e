"""Dial where a peer has rotated since it was dialled: what it signs fits another connection alone."""

import pytest

from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Outdated
from nsmesh.core.life import OWN
from nsmesh.core.peering import DIALLED, Dialled, peer_of
from nsmesh.core.virtual import run
from nsmesh.elements.dial import Dial
from nsmesh.model.messages import Connection, NetworkServiceEndpoint, NetworkServiceRequest

URL = "unix:///there"


class Server:
    """Somebody whose key changes; notes what it is asked."""

    def __init__(self):
        self.key = 1
        self.asked = []

    def connected(self):
        return Line(self, self.key)


class Line:
    """A connection to it, that has shown the key of its day."""

    def __init__(self, server, key):
        self.server = server
        self.peer = Peer(spiffe_id="spiffe://t/there", certificate=bytes([key]))

    async def request(self, call, request):
        self.server.asked.append("request")
        return request.connection

    async def close(self, call, connection):
        self.server.asked.append("close")

    async def register(self, call, entry):
        assert entry.url == "unix:///mine"
        entry.url = "written over"
        self.server.asked.append("register")
        return entry


class Lines:
    """Keeps one connection until it is told to dial anew."""

    def __init__(self, server):
        self.server, self.line, self.dials = server, None, 0

    def at_hand(self, url):
        return self.line

    async def get(self, url):
        if self.line is None:
            self.dials += 1
            self.line = self.server.connected()
        return self.line

    def renew(self, url):
        self.line = None


class Check(Element):
    """Refuses what is signed with a key that the connection has not shown; ``never``: everything."""

    after = ("Dial",)

    def __init__(self, server):
        self.server = server
        self.never = False

    def _check(self, call):
        if self.never or peer_of(call.get(DIALLED)).certificate != bytes([self.server.key]):
            raise Outdated("signed with another key")

    async def request(self, call, request, next):
        answer = await next.request(call, request)
        self._check(call)
        return answer

    async def register(self, call, entry, next):
        answer = await next.register(call, entry)
        self._check(call)
        return answer


def scenario(body):
    async def main():
        server = Server()
        lines, check = Lines(server), Check(server)
        made = chain(BeginClient(), Dial(lines, target=URL), check, end=Dialled())
        async with made.running():
            await made.request(own(), ask())
            await body(server, lines, check, made)

    run(main())


def own():
    return Call(values={OWN: True}).within(15)


def ask(number=0):
    return NetworkServiceRequest(connection=Connection(id=f"c{number}"))


def entry():
    return NetworkServiceEndpoint(name="e", url="unix:///mine")


def test_a_refresh_is_made_again_on_a_new_connection():
    """The client hears of no rotation."""

    async def body(server, lines, check, made):
        server.key = 2
        await made.request(own(), ask())
        assert server.asked == ["request"] * 3
        assert lines.dials == 2

    scenario(body)


def test_a_first_request_is_undone_and_the_next_one_dials_anew():
    """The peer may have made something of it: it is not asked twice for one wire."""

    async def body(server, lines, check, made):
        server.key = 2
        with pytest.raises(Outdated):
            await made.request(own(), ask(1))
        assert server.asked == ["request", "request", "close"]
        await made.request(own(), ask(1))
        assert lines.dials == 2

    scenario(body)


def test_a_registration_is_made_again_on_a_new_connection():
    """It is said as it was said first, whatever was written into it on the way."""

    async def body(server, lines, check, made):
        server.key = 2
        await made.register(own(), entry())
        assert server.asked == ["request", "register", "register"]

    scenario(body)


def test_a_peer_that_never_signs_right_is_not_asked_for_ever():
    """Who is refused on a new connection too is refused."""

    async def body(server, lines, check, made):
        check.never = True
        with pytest.raises(Outdated):
            await made.request(own(), ask())
        assert server.asked.count("request") <= 4
        with pytest.raises(Outdated):
            await made.register(own(), entry())
        assert server.asked.count("register") == 2

    scenario(body)
