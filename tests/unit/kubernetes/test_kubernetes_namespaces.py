"""Namespaces as the admission webhook reads them."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core import virtual
from nsmesh.core.errors import NotFound, TimedOut, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.namespaces import PATIENCE, Namespaces

KEY = "networkservicemesh.io"


def space(name, value=None):
    annotations = {"annotations": {KEY: value}} if value else {}
    return {"metadata": {"name": name, "uid": "u", **annotations}, "spec": {"finalizers": ["kubernetes"]}}


class Server:
    """Answers after a second of its own kind; counts."""

    def __init__(self, seconds=0.1):
        self.seconds = seconds
        self.calls = 0
        self.held = {"a": space("a", "kernel://x")}
        self.error = None
        self.room = True

    def free(self):
        return self.room

    async def call(self, method, path):
        self.calls += 1
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        name = path.rsplit("/", 1)[1]
        if name not in self.held:
            raise NotFound("gone")
        return self.held[name]


def test_many_who_ask_at_once_share_a_reading():
    """Nobody gets what was read before he asked; a hundred pods cost two calls."""

    async def main():
        server = Server()
        async with Scope("test") as scope:
            namespaces = Namespaces(server, KEY, scope)
            first = asyncio.gather(*(namespaces.read("a") for _ in range(50)))
            await asyncio.sleep(0.05)
            server.held["a"] = space("a", "kernel://later")
            later = asyncio.gather(*(namespaces.read("a") for _ in range(50)))
            assert {item["metadata"]["annotations"][KEY] for item in await later} == {"kernel://later"}
            await first
            assert server.calls == 2
            assert await namespaces.read("none") == {}

    virtual.run(main())


def test_a_server_that_does_not_answer():
    """What was known has to do, within a second; who was never known is an error."""

    async def main():
        server = Server(seconds=60)
        async with Scope("test") as scope:
            namespaces = Namespaces(server, KEY, scope)
            with pytest.raises(TimedOut):
                await namespaces.read("a")
            namespaces.replace([space("a", "kernel://known")], "1")
            begun = asyncio.get_running_loop().time()
            assert (await namespaces.read("a"))["metadata"]["annotations"][KEY] == "kernel://known"
            assert asyncio.get_running_loop().time() - begun <= PATIENCE + 0.01
            server.seconds, server.error = 0, Unavailable("away")
            assert (await namespaces.read("a"))["metadata"]["name"] == "a"
            with pytest.raises(Unavailable):
                await namespaces.read("b")

    virtual.run(main())


def test_no_pod_waits_for_the_rate_of_calls():
    """What the watch told is taken then; who is unknown is read all the same."""

    async def main():
        server = Server()
        async with Scope("test") as scope:
            namespaces = Namespaces(server, KEY, scope)
            server.room = False
            assert (await namespaces.read("a"))["metadata"]["annotations"][KEY] == "kernel://x"
            assert server.calls == 1
            server.held["a"] = space("a")
            assert (await namespaces.read("a"))["metadata"]["annotations"][KEY] == "kernel://x"
            assert server.calls == 1
            server.room = True
            assert "annotations" not in (await namespaces.read("a"))["metadata"]

    virtual.run(main())


def test_who_waits_no_longer_keeps_nobody_from_reading():
    """A caller that is cancelled takes no answer away from others."""

    async def main():
        async with Scope("test") as scope:
            namespaces = Namespaces(Server(), KEY, scope)
            gone = asyncio.create_task(namespaces.read("a"))
            other = asyncio.create_task(namespaces.read("a"))
            await asyncio.sleep(0.01)
            gone.cancel()
            assert (await other)["metadata"]["name"] == "a"
            assert (await namespaces.read("a"))["metadata"]["name"] == "a"

    virtual.run(main())


def test_which_carry_the_annotation():
    """None until all are listed; told when the set changes, and then alone."""

    async def main():
        told = []
        async with Scope("test") as scope:
            namespaces = Namespaces(Server(), KEY, scope)
            namespaces.tell = lambda: told.append(namespaces.annotated)
            namespaces.changed(space("a", "kernel://x"))
            assert namespaces.annotated is None
            namespaces.replace([space("a", "kernel://x"), space("b")], "1")
            namespaces.changed(space("b"))
            namespaces.changed(space("b", "kernel://x"))
            namespaces.changed(space("b", "kernel://y"))
            namespaces.deleted(space("a"))
        assert told == [frozenset("a"), frozenset("ab"), frozenset("b")]

    virtual.run(main())
