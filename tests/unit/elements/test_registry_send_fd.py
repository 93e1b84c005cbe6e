"""RegistrySendFd: sockets of this node go along, and nothing else."""

import asyncio
import socket
from pathlib import Path

from nsmesh.core.call import Call
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import NotFound
from nsmesh.core.passing import PASSING
from nsmesh.core.peering import DIALLED
from nsmesh.elements.registry_send_fd import RegistrySendFd, RegistrySendFdClient
from nsmesh.model.fileurl import inode_url
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsmesh.rpc.files import Files


class Receives:
    """A peer on a unix socket."""

    def __init__(self):
        self.sent = []

    def send(self, path):
        if "gone" in path:
            raise NotFound("it is gone")
        self.sent.append(path)
        return "inode://8/1"


class Remote:
    def __init__(self, passing=None):
        self.passing = passing


class Registry(Tail):
    """Finds one endpoint for each URL; stores what comes."""

    def __init__(self, *urls, deleted=False):
        self.urls = urls
        self.deleted = deleted
        self.seen = []

    async def find(self, call, query):
        if isinstance(query, NetworkServiceQuery):
            yield NetworkServiceResponse(network_service=NetworkService(name="s"))
        for url in self.urls:
            endpoint = NetworkServiceEndpoint(url=url)
            yield NetworkServiceEndpointResponse(network_service_endpoint=endpoint, deleted=self.deleted)

    async def register(self, call, entry):
        self.seen.append(getattr(entry, "url", ""))
        return entry

    async def unregister(self, call, entry):
        self.seen.append(getattr(entry, "url", ""))


def found(call, registry, query=None):
    async def main():
        server = chain(RegistrySendFd(), end=registry)
        return [item async for item in server.find(call, query or NetworkServiceEndpointQuery())]

    return [getattr(item, "network_service_endpoint", item) for item in asyncio.run(main())]


def test_sockets_of_this_node_are_sent():
    """Unix sockets with a file go as descriptors; others, and files that are not here, as they are."""
    peer = Receives()
    urls = ["unix:///a.sock", "tcp://1.2.3.4:5", "unix://@abstract", "unix:///gone.sock", "inode://1/2"]
    told = found(Call().put(PASSING, peer), Registry(*urls))
    assert [endpoint.url for endpoint in told] == ["inode://8/1", *urls[1:]]
    assert peer.sent == ["/a.sock"]


def test_without_a_unix_socket_nothing_is_sent():
    """Over tcp, and to a role of this process, the path is told."""
    assert found(Call(), Registry("unix:///a.sock"))[0].url == "unix:///a.sock"


def test_who_is_gone_and_services_are_told_as_they_are():
    """Nobody will dial them."""
    peer = Receives()
    call = Call().put(PASSING, peer)
    assert found(call, Registry("unix:///a.sock", deleted=True))[0].url == "unix:///a.sock"
    assert found(call, Registry(), NetworkServiceQuery())[0].network_service.name == "s"
    assert peer.sent == []


def registered(handler, entry):
    async def main():
        end = Registry()
        client = chain(RegistrySendFdClient(), end=end)
        call = Call().put(DIALLED, handler)
        url = getattr(await client.register(call, entry), "url", "")
        await client.unregister(call, entry)
        return end.seen, url

    return asyncio.run(main())


def test_a_registration_takes_its_socket_along():
    """Register and Unregister name the inode; the answer has the URL as it was."""
    url = "unix:///a.sock"
    assert registered(Remote(Receives()), NetworkServiceEndpoint(url=url)) == (["inode://8/1"] * 2, url)


def test_registrations_without_a_unix_socket_stay():
    """Over tcp, with a tcp URL, and services."""
    for handler, entry in (
        (Remote(), NetworkServiceEndpoint(url="unix:///a.sock")),
        (Remote(Receives()), NetworkServiceEndpoint(url="tcp://1.2.3.4:5")),
        (Remote(Receives()), NetworkServiceEndpoint(url="unix:///gone.sock")),
        (Remote(Receives()), NetworkService(name="s")),
    ):
        url = getattr(entry, "url", "")
        assert registered(handler, entry) == ([url] * 2, url)


class Opens:
    """A peer on a unix socket that says which file it was sent."""

    def send(self, path):
        found = Path(path).stat()
        return inode_url(found.st_dev, found.st_ino)


def listening(path):
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made, inode_url(path.stat().st_dev, path.stat().st_ino)


def test_a_socket_that_takes_the_path_over_is_not_sent(tmp_path):
    """All Registers send the socket of the first one, also when its path leads elsewhere or nowhere."""

    async def main():
        end, path = Registry(), tmp_path / "nse.sock"
        files = Files()
        client = chain(RegistrySendFdClient(files), end=end)
        call = Call().put(DIALLED, Remote(Opens()))

        def entry(at=path):
            return NetworkServiceEndpoint(name="nse", url=f"unix://{at}")

        first, ours = listening(path)
        await client.register(call, entry())
        second, theirs = listening(path)
        await client.register(call, entry())
        path.unlink()
        assert (await client.register(call, entry())).url == f"unix://{path}"
        assert end.seen == [ours] * 3
        other, moved = listening(tmp_path / "other.sock")
        await client.register(call, entry(tmp_path / "other.sock"))
        assert end.seen[3:] == [moved]
        assert len(files) == 1
        await client.unregister(call, entry(tmp_path / "other.sock"))
        assert end.seen[4:] == [moved]
        assert len(files) == 0
        third, anew = listening(path)
        async with client.running():
            await client.register(call, entry())
            assert end.seen[5:] == [anew]
            assert theirs != ours
        assert len(files) == 0
        for made in (first, second, other, third):
            made.close()

    asyncio.run(main())
