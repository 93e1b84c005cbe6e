"""The process-wide table of received descriptors: found by inode, bounded, and never leaking one."""

import asyncio
import contextlib
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_helpers import open_descriptors

from nsmesh.core.call import Peer
from nsmesh.core.errors import TimedOut
from nsmesh.core.virtual import run
from nsmesh.rpc.descriptors import Descriptors

PEER = Peer(spiffe_id="spiffe://test.mesh/a", uid=1, pid=os.getpid())
OTHER = Peer(spiffe_id="spiffe://test.mesh/b", uid=1, pid=1)


def opened(path):
    fd = os.open(path, os.O_PATH)
    found = os.fstat(fd)
    return fd, found.st_dev, found.st_ino


def same(fd, dev, ino):
    """Return whether ``fd`` is that file, and close it."""
    found = os.fstat(fd)
    os.close(fd)
    return (found.st_dev, found.st_ino) == (dev, ino)


def test_what_came_is_found_by_its_inode(tmp_path):
    """A descriptor is found by device and inode, as often as asked for, by calls of the peer that sent it."""

    async def main():
        table = Descriptors()
        fd, dev, ino = opened(tmp_path)
        assert table.arrived(fd, table.source(PEER, 10))
        for _ in range(3):
            assert same(await table.view(PEER).wait(dev, ino), dev, ino)
        with pytest.raises(TimedOut, match="did not come"):
            await table.view(OTHER).wait(dev, ino, asyncio.get_running_loop().time() + 1)
        table.close()

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_a_waiter_gets_what_comes_later(tmp_path):
    """A call that is faster than its descriptor waits for it; two calls get one each."""

    async def main():
        table = Descriptors()
        fd, dev, ino = opened(tmp_path)
        loop = asyncio.get_running_loop()
        view = table.view(PEER)
        waiting = [asyncio.ensure_future(view.wait(dev, ino, loop.time() + 15)) for _ in range(2)]
        await asyncio.sleep(1)
        table.arrived(fd, table.source(PEER, 10))
        first, second = await asyncio.gather(*waiting)
        assert first != second
        assert same(first, dev, ino)
        assert same(second, dev, ino)
        table.close()

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_waiting_ends_with_the_deadline_or_a_minute():
    """Without its descriptor a call fails at its deadline; without a deadline after a minute."""

    async def main():
        table = Descriptors()
        loop = asyncio.get_running_loop()
        for deadline, seconds in ((loop.time() + 15, 15), (None, 60)):
            began = loop.time()
            with pytest.raises(TimedOut):
                await table.view(PEER).wait(1, 2, deadline)
            assert loop.time() - began == pytest.approx(seconds)
        assert not table._waiters

    run(main())


def test_a_cancelled_waiter_leaks_nothing(tmp_path):
    """A call that is cancelled in the moment in which its descriptor comes leaves none open."""

    async def main():
        table = Descriptors()
        fd, dev, ino = opened(tmp_path)
        task = asyncio.ensure_future(table.view(PEER).wait(dev, ino))
        await asyncio.sleep(0)
        table.arrived(fd, table.source(PEER, 10))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            os.close(await task)
        table.close()

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_a_duplicate_is_closed_at_once(tmp_path):
    """The same file sent again costs no descriptor."""

    async def main():
        table = Descriptors()
        source = table.source(PEER, 10)
        for _ in range(5):
            table.arrived(opened(tmp_path)[0], source)
        assert len(table) == 1
        table.close()

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_a_flood_is_closed(tmp_path):
    """Beyond its bound, what a connection sends unasked is closed; what was asked for makes room again."""

    async def main():
        table = Descriptors()
        source = table.source(PEER, 3)
        sent = []
        for number in range(6):
            path = tmp_path / str(number)
            path.touch()
            fd, dev, ino = opened(path)
            sent.append((table.arrived(fd, source), dev, ino))
        assert [kept for kept, _, _ in sent] == [True] * 3 + [False] * 3
        os.close(await table.view(PEER).wait(*sent[0][1:]))
        assert table.arrived(opened(tmp_path)[0], source)
        assert not table.arrived(opened(tmp_path / "5")[0], source)
        table.close()

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_the_whole_table_is_bounded(tmp_path):
    """Many connections together cannot use up the descriptors of the process."""

    async def main():
        table = Descriptors(largest=4)
        for number in range(6):
            (tmp_path / str(number)).touch()
            table.arrived(opened(tmp_path / str(number))[0], table.source(PEER, 100))
        assert len(table) == 4
        table.close()

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["come", "ask", "pass"]), st.integers(0, 4), st.integers(0, 80)))
)
def test_everything_is_closed_in_time(steps, tmp_path_factory):
    """Whatever came and was asked for in whatever order, two lifetimes later the table holds nothing."""
    folder = tmp_path_factory.mktemp("inodes")
    for number in range(5):
        (folder / str(number)).touch()

    async def main():
        table = Descriptors(lifetime=60)
        source = table.source(PEER, 3)
        for what, number, seconds in steps:
            if what == "pass":
                await asyncio.sleep(seconds)
                continue
            fd, dev, ino = opened(folder / str(number))
            if what == "come":
                table.arrived(fd, source)
                continue
            os.close(fd)
            with contextlib.suppress(TimedOut):
                os.close(await table.view(PEER).wait(dev, ino, asyncio.get_running_loop().time()))
        await asyncio.sleep(120)
        assert len(table) == 0
        assert source.unclaimed == 0

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


@pytest.mark.parametrize("successor", [True, False])
def test_what_the_dead_have_sent_is_not_kept(tmp_path, successor):
    """It goes when another process comes in the place of its sender, and with the next sweep in any case."""
    with subprocess.Popen(["sleep", "60"]) as process:
        dead = Peer(spiffe_id=PEER.spiffe_id, uid=1, pid=process.pid)
        process.kill()

    async def main():
        table = Descriptors(lifetime=60)
        for peer in (dead, PEER):
            source = table.source(peer, 10)
            assert table.arrived(opened(tmp_path)[0], source)
            if peer is dead:
                assert len(table) == 1
            if not successor:
                break
        assert len(table) == 1
        if successor:
            _, dev, ino = fd = opened(tmp_path)
            os.close(fd[0])
            assert same(await table.view(PEER).wait(dev, ino), dev, ino)
        await asyncio.sleep(20)
        assert len(table) == successor
        table.close()

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_nobody_fills_the_table_for_the_others(tmp_path):
    """In a full table whoever has the most makes room for a newcomer, and not the reverse."""

    async def main():
        table = Descriptors(largest=4)
        greedy = [Peer(spiffe_id="spiffe://test.mesh/greedy", uid=1, pid=pid) for pid in range(6)]
        for number, peer in enumerate(greedy):  # processes and connections by the dozen are one account
            (tmp_path / str(number)).touch()
            table.arrived(opened(tmp_path / str(number))[0], table.source(peer, 100))
        fd, dev, ino = opened(tmp_path)
        assert table.arrived(fd, table.source(OTHER, 100))
        assert len(table) == 4
        assert same(await table.view(OTHER).wait(dev, ino), dev, ino)
        assert not table.arrived(opened(tmp_path / "5")[0], table.source(greedy[0], 100))
        assert same(await table.view(OTHER).wait(dev, ino), dev, ino)
        table.close()
        assert not table._accounts

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before
