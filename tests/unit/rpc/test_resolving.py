"""Names of hosts: looked up beside everything else, by a resolver that may be silent."""

import asyncio
import socket
import threading
import time

import pytest

from nsmesh.core.errors import TimedOut, Unavailable
from nsmesh.rpc import resolving
from nsmesh.rpc.address import parse
from nsmesh.rpc.dialing import dial


@pytest.fixture
def resolver(monkeypatch):
    """Give a resolver that is silent about ``silent.test`` until the test is over, and who was asked for."""
    over, asked = threading.Event(), []
    real = socket.getaddrinfo

    def lookup(host, *arguments, **options):
        asked.append(host)
        if host.endswith("silent.test"):
            over.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield asked
    over.set()


def address(host, port=9):
    return parse(f"tcp://{host}:{port}")


def test_a_silent_resolver_is_asked_once_and_holds_up_nobody(resolver):
    """Fifty dials to one name end in their own time; other names are found meanwhile; so is the way out."""

    async def main():
        silent = [asyncio.create_task(dial(address("silent.test"), 0.3)) for _ in range(50)]
        with socket.create_server(("127.0.0.1", 0)) as server:
            (await dial(address("known.test", server.getsockname()[1]), 20)).close()
        assert not any(task.done() and task.exception() is None for task in silent)
        for task in silent:
            with pytest.raises(
                TimedOut, match=r"tcp://silent\.test:9 did not take a connection within 0\.3 s"
            ):
                await task

    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < 20  # the resolver is silent for 30
    assert sorted(resolver) == ["known.test", "silent.test"]


def test_no_more_names_are_asked_for_at_a_time_than_there_may_be_threads(resolver, monkeypatch):
    """Another one is refused at once, with what to check; a name that is asked for already is not another."""
    monkeypatch.setattr(resolving, "MOST", 2)

    async def main():
        names = ("a.silent.test", "b.silent.test", "a.silent.test")
        silent = [asyncio.create_task(dial(address(name), 0.3)) for name in names]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match=r"the host c\.test is not looked up: 2 others") as caught:
            await dial(address("c.test"), 5)
        assert "resolver" in caught.value.remedy
        for task in silent:
            with pytest.raises(TimedOut):
                await task

    asyncio.run(main())


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.test"])
def test_what_is_no_name_at_all_has_no_address(host):
    """As one that nobody knows: Unavailable, and the next question is a new one."""

    async def main():
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"has no address: .*label"):
                await dial(address(host), 5)
        here = asyncio.get_running_loop()
        assert all(loop is not here for loop, _ in resolving._asked)

    asyncio.run(main())
