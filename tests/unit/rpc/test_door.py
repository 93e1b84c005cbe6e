"""The door of a server: what is taken off a listening socket, and what stands in the way of that."""

import asyncio
import errno
import socket

from nsmesh.rpc.door import Door


class Listening:
    """A listener on a real socket, whose ``accept`` fails as often as it is told."""

    def __init__(self, path, fails=0):
        self.socket = self
        self.fails = fails
        self._inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._inner.bind(str(path))
        self._inner.listen()
        self._inner.settimeout(0)
        self.fileno = self._inner.fileno
        self.close = self._inner.close
        self.accepts = lambda: None

    def accept(self):
        """Take a connection, where there are descriptors."""
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._inner.accept()


async def knock(path):
    """Dial; return what is read: nothing where the door was shut in our face."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def greet(sock):
    sock.sendall(b"hello")
    sock.close()


def test_who_comes_while_no_descriptor_is_left_waits(tmp_path):
    """Out of descriptors a door says so, once a pause and not once a turn, and takes who waited later."""

    async def main():
        said = []
        door = Door(Listening(tmp_path / "s", fails=2), greet, lambda text, **_: said.append(text))
        door.open()
        try:
            assert await knock(tmp_path / "s") == b"hello"
        finally:
            door.close()
        assert said == ["no descriptors left: not accepting for a moment"] * 2

    asyncio.run(main())


def test_one_that_cannot_be_taken_is_closed_and_the_next_is_taken(tmp_path):
    """A connection that is lost while it is accepted costs nobody else anything."""

    async def main():
        said, first = [], [True]

        def accepted(sock):
            if first:
                first.pop()
                raise OSError(errno.ENOTCONN, "it went away")
            greet(sock)

        door = Door(Listening(tmp_path / "s"), accepted, lambda text, **_: said.append(text))
        door.open()
        try:
            assert await knock(tmp_path / "s") == b""
            assert await knock(tmp_path / "s") == b"hello"
        finally:
            door.close()
        assert said == ["a connection was lost while it was accepted"]

    asyncio.run(main())


def test_a_door_that_closes_in_a_pause_stays_closed(tmp_path):
    """No timer opens it again, and whoever dials then is refused."""

    async def main():
        paused = asyncio.Event()
        door = Door(Listening(tmp_path / "s", fails=1), greet, lambda *_, **__: paused.set())
        door.open()
        waiting = asyncio.ensure_future(knock(tmp_path / "s"))
        await paused.wait()
        door.close()
        (found,) = await asyncio.gather(waiting, return_exceptions=True)
        assert found == b"" or isinstance(found, ConnectionError)
        await asyncio.sleep(0.2)

    asyncio.run(main())
