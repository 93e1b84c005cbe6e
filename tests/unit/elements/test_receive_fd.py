"""ReceiveFd on its own: what is refused, what is known, and for how long."""

import asyncio
import os
from pathlib import Path

import pytest

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Invalid, TimedOut
from nsmesh.core.passing import PASSING
from nsmesh.core.peering import NEXT_HOP
from nsmesh.elements.receive_fd import ReceiveFd, ReceiveFdClient
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest
from nsmesh.rpc.files import Files

FOUND = Path("/proc/thread-self/ns/net").stat()
INODE = f"inode://{FOUND.st_dev}/{FOUND.st_ino}"


class Sent:
    """A peer on a unix socket that has sent its network namespace, or nothing."""

    def __init__(self, *, sends=True):
        self.sends = sends
        self.taken = 0

    def send(self, path):
        raise NotImplementedError

    async def take(self, dev, ino, deadline):
        if not self.sends:
            raise TimedOut("it did not come")
        self.taken += 1
        return os.open("/proc/thread-self/ns/net", os.O_PATH | os.O_CLOEXEC)

    def expected(self, dev, ino):
        pass


class Hop:
    """A remote next hop that answers with one inodeURL."""

    def __init__(self, passing=None):
        self.peer = Peer(spiffe_id="spiffe://x/nse")
        self.passing = passing


def kernel(url):
    return Mechanism(cls="LOCAL", type="KERNEL", parameters={"inodeURL": url})


def request(url, agreed=None):
    connection = Connection(id="c")
    if agreed:
        connection.mechanism.CopyFrom(kernel(agreed))
    return NetworkServiceRequest(connection=connection, mechanism_preferences=[kernel(url)])


class Takes(Tail):
    """Agrees to the first preference, notes it; ``url`` answers another."""

    def __init__(self, url=""):
        self.url = url
        self.seen = []
        self.closed = []

    async def request(self, call, request):
        named = [mechanism.parameters["inodeURL"] for mechanism in request.mechanism_preferences]
        self.seen.append(named)
        if not request.connection.HasField("mechanism"):
            request.connection.mechanism.CopyFrom(request.mechanism_preferences[0])
        if self.url:
            request.connection.mechanism.parameters["inodeURL"] = self.url
        return request.connection

    async def close(self, call, connection):
        self.closed.append(connection.mechanism.parameters["inodeURL"])


def made(element, end):
    return chain(element, end=end)


def url_of(answer):
    return answer.mechanism.parameters["inodeURL"]


def test_an_inode_over_tcp_is_refused_at_once():
    """Nothing can come beside a message over tcp, so nobody waits for it."""
    made_of = made(ReceiveFd(Files()), Takes())
    with pytest.raises(
        Invalid, match=r"KERNEL mechanism of connection c cannot have come.*tcp carries no desc"
    ):
        asyncio.run(made_of.request(Call(peer=Peer(spiffe_id="spiffe://x/nsc")), request(INODE)))


def test_it_is_a_path_behind_and_an_inode_in_front():
    """The elements behind open a path, the caller reads what it wrote; a Close is led there too, once."""

    async def main():
        files, end = Files(), Takes()
        element = ReceiveFd(files)
        server = made(element, end)
        call = Call().put(PASSING, Sent())
        answer = await server.request(call, request(INODE, agreed=INODE))
        assert url_of(answer) == INODE
        (path,) = end.seen[0]
        assert Path(path.removeprefix("file://")).samefile("/proc/self/ns/net")
        assert await server.request(Call(), request(INODE, agreed=INODE)) == answer
        await server.close(Call(), copy_of(answer))
        await server.close(Call(), copy_of(answer))
        assert end.closed == [path, INODE]
        assert (len(element), len(files)) == (0, 0)

    asyncio.run(main())


def test_a_re_request_of_our_own_needs_no_peer():
    """What Begin kept is sent again in nobody's name: it is known."""

    async def main():
        server = made(ReceiveFd(Files()), Takes())
        async with server.running():
            await server.request(Call().put(PASSING, Sent()), request(INODE))
            assert url_of(await server.request(Call(), request(INODE))) == INODE

    asyncio.run(main())


def test_a_chain_that_ends_lets_go():
    """Leaving the chain closes what is held."""

    async def main():
        files = Files()
        server = made(ReceiveFd(files), Takes())
        async with server.running():
            await server.request(Call().put(PASSING, Sent()), request(INODE))
            assert len(files) == 1
        assert len(files) == 0

    asyncio.run(main())


def test_a_role_of_this_process_names_paths():
    """A path that another role of the process received is held by both, until both have closed."""

    async def main():
        files, end = Files(), Takes()
        outer, inner = ReceiveFd(files), ReceiveFd(files)
        manager, forwarder = made(outer, end), made(inner, Takes())
        await manager.request(Call().put(PASSING, Sent()), request(INODE))
        (path,) = end.seen[0]
        ours = Call(peer=Peer(in_process=True))
        assert url_of(await forwarder.request(ours, request(path))) == path
        await manager.close(Call(), Connection(id="c"))
        assert len(files) == 1
        await forwarder.close(ours, Connection(id="c"))
        assert len(files) == 0
        assert url_of(await forwarder.request(ours, request("file:///run/netns/x"))) == "file:///run/netns/x"

    asyncio.run(main())


def answered(url, passing, *, offered="file:///mine", files=None):
    """Return what the client half makes of an answer from a remote hop."""

    async def main():
        element = ReceiveFdClient(files or Files())
        client = made(element, Takes(url))
        call = Call()
        call.state.set(NEXT_HOP, Hop(passing))
        async with client.running():
            return url_of(await client.request(call, request(offered)))

    return asyncio.run(main())


def test_an_answer_by_inode_becomes_a_path():
    """The descriptor that came with the answer is what the path leads to."""
    assert answered(INODE, Sent()).startswith(f"file:///proc/{os.getpid()}/fd/")


def test_an_answer_over_tcp_cannot_name_an_inode():
    """It is refused at once."""
    with pytest.raises(Invalid, match="that connection c was answered with cannot have come"):
        answered(INODE, None)


@pytest.mark.parametrize(
    "path", ["/proc/thread-self/ns/net", f"/proc/{os.getpid()}/fd/3"], ids=["thread-self", "descriptor"]
)
def test_an_answer_cannot_name_files_of_ours(path):
    """An endpoint that answers with what means our own namespace here is refused, unless we named it."""
    with pytest.raises(Invalid, match="the answer for connection c would mean a namespace of this process"):
        answered(f"file://{path}", Sent())
    assert answered(f"file://{path}", Sent(), offered=f"file://{path}") == f"file://{path}"


def test_other_answers_are_as_they_are():
    """A plain path stays."""
    assert answered("file:///run/netns/nse", Sent()) == "file:///run/netns/nse"


def test_a_descriptor_that_does_not_come_fails_the_request():
    """The error of the transport is the caller's."""
    with pytest.raises(TimedOut):
        answered(INODE, Sent(sends=False))


def test_mechanisms_without_files_pass():
    """Nothing is looked at where nothing is named."""

    async def main():
        for element in (ReceiveFd(Files()), ReceiveFdClient(Files())):
            server = chain(element)
            await server.request(Call(), NetworkServiceRequest(connection=Connection(id="c")))
            await server.close(Call(), Connection(id="c"))

    asyncio.run(main())
