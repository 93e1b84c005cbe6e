"""Dialling a socket by a descriptor of its file: without a name, and with a number that is used again."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from rpc_helpers import Service

from nsmesh import rpc
from nsmesh.core.errors import Invalid, Unavailable


@contextlib.asynccontextmanager
async def nameless(folder, name, service):
    """Serve on a socket, unlink it, and give a descriptor of it, as one that was received."""
    path = Path(folder, name)
    async with rpc.serve(f"unix://{path}", service.methods()):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        path.unlink()
        try:
            yield fd
        finally:
            os.close(fd)


def url_of(fd):
    return f"unix:///proc/{os.getpid()}/fd/{fd}"


def test_an_unlinked_socket_is_reached_by_its_descriptor(tmp_path):
    """As long as it is open, ``unix:///proc/PID/fd/N`` leads to the server, whatever became of its name."""

    async def main():
        async with nameless(tmp_path, "a", Service()) as fd:
            client = await rpc.connect(url_of(fd))
            assert (await client.unary("/test.Echo/Echo", b"x")).message == b"x"
            await client.aclose(0)

    asyncio.run(main())


def test_a_number_that_is_used_again_leads_to_the_new_server(tmp_path):
    """The pool does not take the connection of one socket for that of another at the same path.

    Calls that run on the old one go on; back at the first socket it is dialled anew.
    """

    async def main():
        first, second = Service(), Service()
        pool = rpc.Pool()
        async with nameless(tmp_path, "a", first) as a, nameless(tmp_path, "b", second) as b:
            number = os.dup(a)
            client = await pool.get(url_of(number))
            assert await pool.get(url_of(number)) is client
            waiting = asyncio.ensure_future(client.unary("/test.Echo/Wait", b"x"))
            await asyncio.sleep(0.05)
            os.dup2(b, number, inheritable=False)
            other = await pool.get(url_of(number))
            assert other is not client
            await other.unary("/test.Echo/Echo", b"y")
            assert len(second.calls) == 1
            first.gate.set()
            assert (await waiting).message == b"x"
            os.close(number)
            with pytest.raises(Unavailable, match="nobody listens"):
                await pool.get(url_of(number))
            await pool.aclose()

    asyncio.run(main())


def test_an_inode_cannot_be_dialled():
    """A socket whose descriptor never came is said to be that."""
    with pytest.raises(Invalid, match="the descriptor of the socket inode://1/2 did not arrive"):
        asyncio.run(rpc.connect("inode://1/2"))


def test_many_descriptors_go_with_few_bytes(tmp_path):
    """More descriptors than one read has room for arrive with a single small call."""

    async def main():
        service = Service()
        for number in range(100):
            (tmp_path / str(number)).touch()
        async with rpc.serve(f"unix://{tmp_path}/server", service.methods()) as server:
            client = await rpc.connect(server.url)
            urls = [client.send_fd(str(tmp_path / str(number))) for number in range(100)]
            await client.unary("/test.Echo/Echo", b"x" * 200)
            for url in urls:
                dev, ino = map(int, url.removeprefix("inode://").split("/"))
                os.close(
                    await service.calls[0].descriptors.wait(dev, ino, asyncio.get_running_loop().time() + 1)
                )
            await client.aclose(0)

    asyncio.run(main())
