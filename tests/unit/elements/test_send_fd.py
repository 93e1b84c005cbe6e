"""SendFd on its own: what travels as a descriptor, and what stays as it is."""

import asyncio

import pytest

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Exhausted, Invalid, NotFound
from nsmesh.core.life import OWN
from nsmesh.core.passing import PASSING
from nsmesh.core.peering import DIALLED
from nsmesh.elements.send_fd import SendFd, SendFdClient
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest

OWN_PATH = "file:///proc/thread-self/ns/net"
REMOTE = Peer(spiffe_id="spiffe://x/y")


class Receives:
    """A peer on a unix socket that takes descriptors of two paths that are one file."""

    def __init__(self):
        self.sent = []

    def send(self, path):
        if path.startswith("/run/gone"):
            raise NotFound(f"there is no file {path}")
        if path.startswith("/run/full"):
            raise Exhausted("no descriptor is left")
        self.sent.append(path)
        return f"inode://4/{100 if 'proc' in path else 200}"


class Remote:
    """Who was dialled: over a unix socket with ``passing``, else over tcp."""

    def __init__(self, passing=None):
        self.peer = REMOTE
        self.passing = passing


class Endpoint(Tail):
    """Agrees to what came, or answers its own; keeps what it saw."""

    def __init__(self, url=""):
        self.url = url
        self.seen = []

    async def request(self, call, request):
        named = [*request.mechanism_preferences]
        if request.connection.HasField("mechanism"):
            named.append(request.connection.mechanism)
        self.seen.append([mechanism.parameters["inodeURL"] for mechanism in named])
        request.connection.mechanism.CopyFrom(named[-1])
        if self.url:
            request.connection.mechanism.parameters["inodeURL"] = self.url
        return request.connection

    async def close(self, call, connection):
        self.seen.append([connection.mechanism.parameters["inodeURL"]])


def kernel(url):
    return Mechanism(cls="LOCAL", type="KERNEL", parameters={"inodeURL": url})


def request(*urls, agreed=""):
    connection = Connection(id="c")
    if agreed:
        connection.mechanism.CopyFrom(kernel(agreed))
    return NetworkServiceRequest(connection=connection, mechanism_preferences=[kernel(url) for url in urls])


def served(call, answer, *urls):
    """Return the inodeURL of a server half's answer."""
    made = asyncio.run(chain(SendFd(), end=Endpoint(answer)).request(call, request(*urls)))
    return made.mechanism.parameters["inodeURL"]


def test_an_answer_names_its_file_by_inode():
    """The server's own namespace goes to the caller as a descriptor."""
    peer = Receives()
    assert served(Call(peer=REMOTE).put(PASSING, peer), OWN_PATH, "inode://4/1") == "inode://4/100"
    assert peer.sent == ["/proc/thread-self/ns/net"]


@pytest.mark.parametrize("url", ["inode://4/1", "file:///run/netns/x"])
def test_what_the_caller_named_it_reads_again(url):
    """Its own words come back, and nothing is sent for them."""
    peer = Receives()
    assert served(Call(peer=REMOTE).put(PASSING, peer), "", url) == url
    assert peer.sent == []


def test_an_answer_over_tcp_cannot_mean_its_reader():
    """A plain path stays; one that would mean the reader's own namespace is an error."""
    assert served(Call(peer=REMOTE), "file:///run/netns/nse", "") == "file:///run/netns/nse"
    with pytest.raises(Invalid, match="thread-self/ns/net cannot be passed on: only unix sockets"):
        served(Call(peer=REMOTE), OWN_PATH, "")


@pytest.mark.parametrize("call", [Call(peer=Peer(in_process=True)), Call(peer=REMOTE, values={OWN: True})])
def test_nothing_is_sent_within_a_process(call):
    """Neither to a role of this process nor for a re-request of our own."""
    assert served(call, OWN_PATH, "") == OWN_PATH


def asked(handler, *urls, agreed="", answer=""):
    """Return what a client half's next hop saw, and the inodeURL that comes back."""
    end = Endpoint(answer)
    call = Call().put(DIALLED, handler)
    made = asyncio.run(chain(SendFdClient(), end=end).request(call, request(*urls, agreed=agreed)))
    return end.seen[0], made.mechanism.parameters["inodeURL"]


def test_a_request_sends_each_file_once():
    """Preference and mechanism with the same path need one descriptor, and the path comes back."""
    peer = Receives()
    seen, back = asked(Remote(peer), OWN_PATH, agreed=OWN_PATH)
    assert (seen, back) == (["inode://4/100"] * 2, OWN_PATH)
    assert peer.sent == ["/proc/thread-self/ns/net"]


def test_of_two_names_of_a_file_the_mechanisms_comes_back():
    """A refresh keeps the words that were agreed to."""
    _, back = asked(Remote(Receives()), OWN_PATH, agreed="file:///proc/7/ns/net")
    assert back == "file:///proc/7/ns/net"
    _, back = asked(Remote(Receives()), "file:///proc/7/ns/net", agreed=OWN_PATH)
    assert back == OWN_PATH


def test_another_answer_is_left_alone():
    """What was not sent is nobody's business here."""
    assert asked(Remote(Receives()), OWN_PATH, answer="inode://4/300")[1] == "inode://4/300"


def test_a_path_that_is_not_here_goes_on_as_it_is():
    """It may lead somewhere for the next hop; too many descriptors are an error all the same."""
    assert asked(Remote(Receives()), "file:///run/gone")[0] == ["file:///run/gone"]
    with pytest.raises(Exhausted):
        asked(Remote(Receives()), "file:///run/full")


def test_over_tcp_only_plain_paths_go():
    """A namespace that only this process can name does not leave it over tcp."""
    assert asked(Remote(), "file:///run/netns/x")[0] == ["file:///run/netns/x"]
    with pytest.raises(
        Invalid, match="use a unix socket for this hop; LOCAL mechanisms do not work over tcp"
    ):
        asked(Remote(), OWN_PATH)


def test_to_a_role_of_this_process_nothing_is_sent():
    """It opens the same paths."""
    assert asked(Endpoint(), OWN_PATH) == ([OWN_PATH], OWN_PATH)


def closed(handler, url):
    end = Endpoint()
    connection = Connection(id="c", mechanism=kernel(url))
    asyncio.run(chain(SendFdClient(), end=end).close(Call().put(DIALLED, handler), connection))
    return end.seen[0][0]


def test_a_close_sends_what_can_be_sent():
    """Close names the file by inode too; it goes on where the file is gone, and over tcp."""
    assert closed(Remote(Receives()), OWN_PATH) == "inode://4/100"
    assert closed(Remote(Receives()), "file:///run/gone") == "file:///run/gone"
    assert closed(Remote(), OWN_PATH) == OWN_PATH
    assert closed(Endpoint(), OWN_PATH) == OWN_PATH
