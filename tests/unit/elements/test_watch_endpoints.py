"""WatchEndpoints: an endpoint whose process has died is dead at once, or when it does not come back."""

from __future__ import annotations

import asyncio
import signal
import subprocess

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, chain
from nsmesh.core.peering import NEXT_HOP
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements import watch_endpoints
from nsmesh.elements.watch_endpoints import WatchEndpoints
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest, Path, PathSegment


class Endpoint(Element):
    """Grants what is asked for, as the process ``pid``."""

    def __init__(self):
        self.pid = 0

    @property
    def peer(self):
        return Peer(pid=self.pid)

    async def request(self, call, request, next):
        call.state.set(NEXT_HOP, self)
        parameters = {"inodeURL": "file:///run/netns/far"}
        call.state.set(DOWNSTREAM, Mechanism(cls="LOCAL", type="KERNEL", parameters=parameters))
        return request.connection


def process():
    return subprocess.Popen(["sleep", "60"])


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def watching(scenario, *, lives, monkeypatch, grace=0.3):
    """Run a scenario with two wires that one process has granted."""
    monkeypatch.setattr(watch_endpoints, "GRACE", grace)
    first = process()

    async def main():
        datapath, told, endpoint = FakeDatapath(), asyncio.Queue(), Endpoint()
        element = WatchEndpoints(datapath, told.put_nowait, lives=lambda _: lives)
        handler = chain(Begin(), element, endpoint)

        async def ask(pid):
            endpoint.pid = pid
            for name in ("c1", "c2"):
                path = Path(index=0, path_segments=[PathSegment(name="fwd"), PathSegment(name="nse")])
                made = Connection(id=name, path=path)
                await handler.request(Call(), NetworkServiceRequest(connection=made))

        async with handler.running():
            await ask(first.pid)
            await scenario(first, ask, told, datapath)
            for name in ("c1", "c2"):
                await handler.close(Call(), Connection(id=name))
            assert list(element.keeps()) == []

    try:
        asyncio.run(main())
    finally:
        end(first)


def test_an_endpoint_that_is_gone_with_its_namespace_is_dead_at_once(monkeypatch):
    """Both wires are silenced and told in one event, without the grace."""

    async def scenario(first, ask, told, datapath):
        end(first)
        event = await asyncio.wait_for(told.get(), 5)
        assert (set(event.connections), event.up) == ({"c1", "c2"}, False)
        assert datapath.silenced == {"c1", "c2"}

    watching(scenario, lives=False, monkeypatch=monkeypatch, grace=60)


def test_one_that_stays_away_is_dead_after_the_grace(monkeypatch):
    """Its namespace still answers: it has its grace, and then nobody takes it for alive."""

    async def scenario(first, ask, told, datapath):
        end(first)
        await asyncio.sleep(0.1)
        assert told.empty()
        event = await asyncio.wait_for(told.get(), 5)
        assert set(event.connections) == {"c1", "c2"}

    watching(scenario, lives=True, monkeypatch=monkeypatch)


def test_one_that_is_back_in_time_loses_nothing(monkeypatch):
    """Clients that ask again are granted by the new process; the death of the old one says nothing."""

    async def scenario(first, ask, told, datapath):
        end(first)
        second = process()
        try:
            await ask(second.pid)
            await asyncio.sleep(0.5)
            assert told.empty()
            assert datapath.silenced == set()
        finally:
            end(second)

    watching(scenario, lives=True, monkeypatch=monkeypatch)
