"""HoldSocket: the way to a next hop lasts as long as a connection goes there."""

import asyncio
import os

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Refused
from nsmesh.core.peering import TARGET
from nsmesh.elements.hold_socket import HoldSocket
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.rpc.files import Files


def received(files, path, owner="registry"):
    """Hold a file as if it had been received, and return its URL."""
    path.touch()
    fd = os.open(path, os.O_PATH)
    found = os.fstat(fd)
    return f"unix://{files.adopt(owner, (found.st_dev, found.st_ino), fd)}"


def request():
    return NetworkServiceRequest(connection=Connection(id="c"))


def test_a_connection_holds_its_target(tmp_path):
    """The registry lets go first, the Close of the connection last."""

    async def main():
        files = Files()
        client = chain(HoldSocket(files))
        await client.request(Call().put(TARGET, received(files, tmp_path / "a")), request())
        files.release("registry")
        assert len(files) == 1
        await client.close(Call(), Connection(id="c"))
        assert len(files) == 0

    asyncio.run(main())


def test_a_moved_connection_lets_go_one_call_later(tmp_path):
    """After a move the old socket is held until the next refresh: the old place may still be closed."""

    async def main():
        files = Files()
        client = chain(HoldSocket(files))
        await client.request(Call().put(TARGET, received(files, tmp_path / "a", "a")), request())
        second = Call().put(TARGET, received(files, tmp_path / "b", "b"))
        files.release("a")
        await client.request(second, request())
        assert len(files) == 2
        await client.request(second, request())
        assert len(files) == 1

    asyncio.run(main())


def test_a_failed_request_holds_until_its_undo(tmp_path):
    """Begin closes what failed, and that lets go."""

    class No(Tail):
        async def request(self, call, request):
            raise Refused("no")

    async def main():
        files = Files()
        client = chain(HoldSocket(files), end=No())
        with pytest.raises(Refused):
            await client.request(Call().put(TARGET, received(files, tmp_path / "a")), request())
        files.release("registry")
        assert len(files) == 1
        await client.close(Call(), Connection(id="c"))
        assert len(files) == 0

    asyncio.run(main())


def test_other_targets_are_nothing_to_hold():
    """Plain paths, tcp and roles of this process pass."""

    async def main():
        element = HoldSocket(Files())
        client = chain(element)
        for target in ("unix:///run/nse.sock", "tcp://1.2.3.4:5", "unix://@x", Tail()):
            await client.request(Call().put(TARGET, target), request())
        await client.request(Call(), request())
        assert len(element) == 0

    asyncio.run(main())
