"""A receiver: takes what it does not know, checks it, and holds it as long as a name needs it."""

import asyncio
import os
import socket
from pathlib import Path

import pytest
from rpc_helpers import open_descriptors

from nsmesh.core.errors import Exhausted, Invalid, TimedOut
from nsmesh.rpc.file_kind import SOCKET
from nsmesh.rpc.files import Files
from nsmesh.rpc.receiver import MOST, Receiver, parsed


class Sent:
    """What a peer has sent: satisfies ``nsmesh.core.passing.Passing``."""

    def __init__(self):
        self.files = {}
        self.taken = 0
        self.told = []

    def send(self, path):
        raise NotImplementedError

    def put(self, path):
        found = Path(path).stat()
        self.files[found.st_dev, found.st_ino] = path
        return found.st_dev, found.st_ino

    async def take(self, dev, ino, deadline):
        await asyncio.sleep(0)
        if (dev, ino) not in self.files:
            raise TimedOut("it did not come")
        self.taken += 1
        return os.open(self.files[dev, ino], os.O_PATH | os.O_CLOEXEC)

    def expected(self, dev, ino):
        self.told.append((dev, ino))


@pytest.fixture
def folder(tmp_path):
    """Sockets named by numbers."""
    opened = []
    for number in range(MOST + 1):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / str(number)))
        opened.append(sock)
    yield tmp_path
    for sock in opened:
        sock.close()


def receive(receiver, sent, inode, name="c"):
    return receiver.receive(name, inode, sent, None, kinds=(SOCKET,), what="the socket of c")


def test_it_takes_once(folder):
    """The second time is from memory; a descriptor that came all the same was not sent unasked."""

    async def main():
        receiver, sent = Receiver(Files()), Sent()
        inode = sent.put(folder / "0")
        path = await receive(receiver, sent, inode)
        assert await receive(receiver, sent, inode) == path
        assert await receive(receiver, None, inode) == path
        assert (sent.taken, sent.told) == (1, [inode])
        assert receiver.inode("c", path) == inode
        assert len(receiver) == 1
        receiver.close()
        assert len(receiver) == 0

    before = open_descriptors()
    asyncio.run(main())
    assert open_descriptors() == before


def test_without_a_unix_socket_nothing_can_have_come():
    """Over tcp it is refused at once, with the reason."""
    with pytest.raises(Invalid, match="did not come over a unix socket - connect these two over a unix"):
        asyncio.run(receive(Receiver(Files()), None, (1, 2)))


def test_the_wrong_kind_is_let_go(tmp_path):
    """It is closed at once and said what it is."""

    async def main():
        receiver, sent = Receiver(Files()), Sent()
        with pytest.raises(Invalid, match="of the socket of c leads to a directory, and a socket was"):
            await receive(receiver, sent, sent.put(tmp_path))
        assert len(receiver) == 0

    before = open_descriptors()
    asyncio.run(main())
    assert open_descriptors() == before


def test_it_is_bounded(folder):
    """One name holds so many and no more."""

    async def main():
        receiver, sent = Receiver(Files()), Sent()
        for number in range(MOST):
            await receive(receiver, sent, sent.put(folder / str(number)))
        with pytest.raises(Exhausted, match="32 files are held for c already"):
            await receive(receiver, sent, sent.put(folder / str(MOST)))
        await receive(receiver, sent, sent.put(folder / str(MOST)), "another")
        receiver.close()

    before = open_descriptors()
    asyncio.run(main())
    assert open_descriptors() == before


def test_what_is_not_named_any_more_goes_one_call_later(folder):
    """A file is held while the call that last named it, or the one after that, is the latest."""

    async def main():
        receiver, sent = Receiver(Files()), Sent()
        a, b = (sent.put(folder / name) for name in "01")
        await receive(receiver, sent, a)
        receiver.settle("c", {a})
        await receive(receiver, sent, b)
        receiver.settle("c", {b})
        assert receiver.known("c", a)
        receiver.settle("c", {b})
        assert not receiver.known("c", a)
        receiver.settle("c", ())
        receiver.settle("c", ())
        assert len(receiver) == 0

    before = open_descriptors()
    asyncio.run(main())
    assert open_descriptors() == before


def test_two_receivers_share_a_file(folder):
    """What one holds another may hold too, by the path; each lets go for itself."""

    async def main():
        files, sent = Files(), Sent()
        first, second = Receiver(files), Receiver(files)
        inode = sent.put(folder / "0")
        path = await receive(first, sent, inode)
        assert second.share("c", path) == inode
        assert second.share("c", "/run/netns/x") is None
        first.release("c")
        assert Path(path).samefile(folder / "0")
        second.drop("c", inode)
        assert (len(first), len(second), len(files)) == (0, 0, 0)

    asyncio.run(main())


def test_urls_are_parsed_with_an_error_for_users():
    """A malformed one is the caller's mistake, with a remedy."""
    assert parsed("inode://1/2") == (1, 2)
    assert parsed("file:///x") is None
    with pytest.raises(Invalid, match="decimal numbers"):
        parsed("inode://x")
