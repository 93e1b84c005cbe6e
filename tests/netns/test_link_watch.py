import asyncio

import datapath_lab as lab
import pytest

from nsmesh.core.errors import NotFound
from nsmesh.datapath.links import LinkWatch
from nsmesh.datapath.linux import LinuxDatapath

pytestmark = pytest.mark.root


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, 5)


def test_interfaces_are_seen_to_come_and_go():
    """What was there at the start is in links; a wire's end appears with its owner, and disappears."""

    async def main(a, b):
        datapath = LinuxDatapath()
        async with LinkWatch(a) as watch:
            assert set(watch.links) == {"lo"}
            waiting = asyncio.create_task(watch.appears("nsm-1"))
            await asyncio.sleep(0)
            assert not waiting.done()
            await datapath.apply(lab.simple(a, b))
            link = await soon(waiting)
            assert link.name == "nsm-1"
            await datapath.remove("w1")
            await soon(watch.disappears("nsm-1"))
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_changes_come_in_order_and_only_when_something_differs():
    """New, up, renamed, gone: each once, a rename as the old name's end and the new name's beginning."""

    async def main(a):
        async with LinkWatch(a) as watch:
            for argv in (
                "link add x type veth peer name y",
                "link set x up",
                "link set x up",
                "link set x down",
                "link set x name z",
                "link del z",
            ):
                lab.run(a, "ip", *argv.split())
            seen = []
            while len(seen) < 2 or seen[-1] != ("z", "gone"):
                change = await soon(anext(watch))
                seen.append((change.link.name, "gone" if change.gone else change.link.up))
            told = [event for event in seen if event[0] in "xz"]
            assert told == [
                ("x", False),
                ("x", True),
                ("x", False),
                ("x", "gone"),
                ("z", False),
                ("z", "gone"),
            ]

    with lab.spaces(1) as (a,):
        asyncio.run(main(a))


def test_lost_messages_are_made_up_for(monkeypatch):
    """When the kernel drops messages (ENOBUFS) the watch looks for itself and is right again."""

    async def main(a):
        async with LinkWatch(a) as watch:
            watch._events.setsockopt(1, 8, 1)  # SO_RCVBUF: the smallest there is
            script = "\n".join(f"link add x{n} type veth peer name y{n}" for n in range(40))
            lab.run(a, "sh", "-c", f"echo '{script}' | ip -batch -")
            await asyncio.sleep(0.05)
            assert set(watch.links) == lab.names(a) | {"lo"}

    with lab.spaces(1) as (a,):
        asyncio.run(main(a))


def test_it_watches_its_own_namespace_by_default_and_ends_cleanly():
    """In a process of the namespace no path is needed; leaving ends the iteration."""

    async def main(a):
        async def follow(watch):
            return [change.link.name async for change in watch]

        async with LinkWatch() as watch:
            following = asyncio.create_task(follow(watch))
            await asyncio.sleep(0)
            lab.run(a, "ip", "link", "add", "x", "type", "veth", "peer", "name", "y")
            await asyncio.sleep(0.05)
            assert {"x", "y"} <= set(watch.links)
        assert {"x", "y"} <= set(await soon(following))

    with lab.spaces(1) as (a,):
        lab.in_thread(a, lambda: asyncio.run(main(a)))


def test_a_missing_namespace_is_not_found():
    """Watching where there is nothing raises NotFound and leaks nothing."""

    async def main():
        with pytest.raises(NotFound):
            async with LinkWatch("/run/netns/no-such-namespace"):
                pass

    asyncio.run(main())
