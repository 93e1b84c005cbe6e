"""RegistryReceiveFd: sockets of endpoints live as long as they are registered, or found."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Invalid, TimedOut, Unavailable
from nsmesh.core.passing import PASSING
from nsmesh.core.peering import DIALLED
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.expire import Expire
from nsmesh.elements.registry_receive_fd import LEASE, RegistryReceiveFd, RegistryReceiveFdClient
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
)
from nsmesh.rpc.files import Files


class Sent:
    """A peer on a unix socket that has sent some files."""

    def __init__(self):
        self.files = {}

    def put(self, path):
        found = Path(path).stat()
        self.files[found.st_dev, found.st_ino] = path
        return f"inode://{found.st_dev}/{found.st_ino}"

    def send(self, path):
        raise NotImplementedError

    async def take(self, dev, ino, deadline):
        if (dev, ino) not in self.files:
            await asyncio.sleep((60 if deadline is None else deadline) - asyncio.get_running_loop().time())
            raise TimedOut("it did not come")
        return os.open(self.files[dev, ino], os.O_PATH | os.O_CLOEXEC)

    def expected(self, dev, ino):
        pass


class Registry(Tail):
    """Stores nothing, notes URLs; ``fails`` while it is true."""

    def __init__(self):
        self.urls = []
        self.fails = False

    async def register(self, call, entry):
        self.urls.append(entry.url)
        if self.fails:
            raise Unavailable("the registry is away")
        return entry

    async def unregister(self, call, entry):
        await self.register(call, entry)


class Finds(Tail):
    """Tells what it is given, then waits for more or ends."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.peer = Peer(spiffe_id="spiffe://x/nsmgr")
        self.passing = None

    def tell(self, name, url, *, deleted=False):
        endpoint = NetworkServiceEndpoint(name=name, url=url)
        self.queue.put_nowait(
            NetworkServiceEndpointResponse(network_service_endpoint=endpoint, deleted=deleted)
        )

    def end(self):
        self.queue.put_nowait(None)

    async def find(self, call, query):
        while (item := await self.queue.get()) is not None:
            yield item


@pytest.fixture
def sockets(tmp_path):
    """Three sockets."""
    opened = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for number, sock in enumerate(opened):
        sock.bind(str(tmp_path / str(number)))
    yield [tmp_path / str(number) for number in range(3)]
    for sock in opened:
        sock.close()


def entry(url, name="nse"):
    return NetworkServiceEndpoint(name=name, network_service_names=["s"], url=url)


def test_register_refresh_unregister(sockets):
    """Behind it is a path, in front the inode; a refresh keeps the path; Unregister lets go."""

    async def main():
        files, end, sent = Files(), Registry(), Sent()
        element = RegistryReceiveFd(files)
        server = chain(Begin(), element, end=end)
        url = sent.put(sockets[0])
        assert (await server.register(Call().put(PASSING, sent), entry(url))).url == url
        assert (await server.register(Call(), entry(url))).url == url
        await server.unregister(Call(), entry(url))
        first, second, last = end.urls
        assert first == second == last
        assert first.startswith(f"unix:///proc/{os.getpid()}/fd/")
        assert (len(element), len(files)) == (0, 0)

    asyncio.run(main())


def test_over_tcp_an_inode_is_refused(sockets):
    """Nothing can have come with it."""
    server = chain(RegistryReceiveFd(Files()), end=Registry())
    with pytest.raises(Invalid, match="of the socket of endpoint nse cannot have come"):
        asyncio.run(server.register(Call(peer=Peer(spiffe_id="x")), entry(Sent().put(sockets[0]))))


def test_what_is_no_endpoint_passes():
    """Services have no socket."""

    async def main():
        server = chain(RegistryReceiveFd(Files()), end=Tail())
        assert (await server.register(Call(), NetworkService(name="s"))).name == "s"
        await server.unregister(Call(), NetworkService(name="s"))

    asyncio.run(main())


def test_a_failed_unregister_keeps_the_socket(sockets):
    """It will be tried again, and the endpoint may still be called meanwhile."""

    async def main():
        files, end, sent = Files(), Registry(), Sent()
        server = chain(RegistryReceiveFd(files), end=end)
        url = sent.put(sockets[0])
        await server.register(Call().put(PASSING, sent), entry(url))
        end.fails = True
        with pytest.raises(Unavailable):
            await server.unregister(Call(), entry(url))
        assert len(files) == 1
        end.fails = False
        await server.unregister(Call(), entry(url))
        assert len(files) == 0

    asyncio.run(main())


def test_a_failed_register_on_a_new_socket_keeps_the_old_one(sockets):
    """What was registered before is still there, and still leads to the old socket."""

    async def main():
        files, end, sent = Files(), Registry(), Sent()
        server = chain(RegistryReceiveFd(files), end=end)
        call = Call().put(PASSING, sent)
        old, new = sent.put(sockets[0]), sent.put(sockets[1])
        await server.register(call, entry(old))
        end.fails = True
        with pytest.raises(Unavailable):
            await server.register(call, entry(new))
        assert len(files) == 1
        end.fails = False
        for _ in range(2):
            await server.register(call, entry(new))
        assert len(files) == 1
        assert Path(end.urls[-1].removeprefix("unix://")).samefile(sockets[1])

    asyncio.run(main())


def test_an_endpoint_that_expires_lets_go(sockets):
    """When its time is over, so is its descriptor."""

    async def main():
        files, sent = Files(), Sent()
        server = chain(Begin(), Expire(60), RegistryReceiveFd(files), end=Registry(), clock=VirtualClock())
        async with server.running():
            await server.register(Call().put(PASSING, sent), entry(sent.put(sockets[0])))
            await asyncio.sleep(59)
            assert len(files) == 1
            await asyncio.sleep(2)
            assert len(files) == 0

    run(main())


async def found(client, query=None):
    return [item.network_service_endpoint.url async for item in client.find(*query)]


def finder(files, end, sent):
    """Return a client half and what to ask it with."""
    client = chain(RegistryReceiveFdClient(files), end=end, clock=VirtualClock())
    end.passing = sent
    return client, Call().put(DIALLED, end)


def test_what_is_found_is_lent(sockets):
    """A found socket can be dialled for a minute after it was last found, by the same path."""

    async def main():
        files, sent, end = Files(), Sent(), Finds()
        client, call = finder(files, end, sent)
        async with client.running():
            urls = []
            for _ in range(3):
                end.tell("nse", sent.put(sockets[0]))
                end.tell("far", "tcp://1.2.3.4:5")
                end.tell("odd", "inode://x")
                end.end()
                urls.append(await found(client, (call, NetworkServiceEndpointQuery())))
                await asyncio.sleep(LEASE - 1)
                assert len(files) == 1
            await asyncio.sleep(2)
            assert len(files) == 0
            assert urls[0] == urls[1] == urls[2]
            assert urls[0][1:] == ["tcp://1.2.3.4:5", "inode://x"]

    run(main())


def test_a_watch_holds_what_it_tells_of(sockets):
    """As long as the watch lives, until it tells of another socket, or that the endpoint is gone."""

    async def main():
        files, sent, end = Files(), Sent(), Finds()
        client, call = finder(files, end, sent)
        async with client.running():
            watch = client.find(call, NetworkServiceEndpointQuery(watch=True))
            end.tell("a", sent.put(sockets[0]))
            end.tell("b", sent.put(sockets[1]))
            await anext(watch)
            await anext(watch)
            await asyncio.sleep(10 * LEASE)
            assert len(files) == 2
            for _ in range(2):
                end.tell("a", sent.put(sockets[2]))
                await anext(watch)
            assert len(files) == 2
            end.tell("b", "", deleted=True)
            await anext(watch)
            assert len(files) == 1
            await watch.aclose()
            assert len(files) == 0

    run(main())


def test_one_that_does_not_come_does_not_stop_a_watch(sockets):
    """The others are told in time; the one without its descriptor keeps its inode."""

    async def main():
        files, sent, end = Files(), Sent(), Finds()
        client, call = finder(files, end, sent)
        async with client.running():
            watch = client.find(call, NetworkServiceEndpointQuery(watch=True))
            end.tell("a", "inode://1/2")
            end.tell("b", sent.put(sockets[1]))
            first, second = await anext(watch), await anext(watch)
            assert asyncio.get_running_loop().time() < 10
            assert first.network_service_endpoint.url == "inode://1/2"
            assert second.network_service_endpoint.url.startswith("unix:///proc/")
            await watch.aclose()

    run(main())


def test_a_find_waits_until_its_deadline():
    """As a Request does."""

    async def main():
        files, sent, end = Files(), Sent(), Finds()
        client, call = finder(files, end, sent)
        async with client.running():
            end.tell("a", "inode://1/2")
            end.end()
            with pytest.raises(TimedOut):
                await found(client, (call.within(15), NetworkServiceEndpointQuery()))
            assert asyncio.get_running_loop().time() == pytest.approx(15)

    run(main())


def test_a_registry_over_tcp_is_believed_as_it_is():
    """Nothing is received there, and nothing waited for."""

    async def main():
        end = Finds()
        client, call = finder(Files(), end, None)
        async with client.running():
            end.tell("a", "inode://1/2")
            end.end()
            assert await found(client, (call, NetworkServiceEndpointQuery())) == ["inode://1/2"]

    run(main())
