"""WatchEndpoints: an endpoint whose process has died is dead at once, or when it does not come back."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from types import SimpleNamespace

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.deciding import DOWNSTREAM, ENDPOINT, Candidate
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import TimedOut, Unavailable
from nsmesh.core.farewell import ABSENT
from nsmesh.core.peering import NEXT_HOP
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.datapath.inhabited import inhabited
from nsmesh.elements import watch_endpoints
from nsmesh.elements.watch_endpoints import WatchEndpoints
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest, Path, PathSegment

URL = "unix:///run/nse.sock"


class Endpoint(Element):
    """Grants what is asked for, as the process ``pid``."""

    def __init__(self):
        self.pid = 0
        self.place = ""
        self.mute = False
        self.absent = []

    @property
    def peer(self):
        return Peer(pid=self.pid)

    async def request(self, call, request, next):
        call.state.set(NEXT_HOP, self)
        call.state.set(ENDPOINT, Candidate("nse", URL))
        parameters = {"inodeURL": self.place}
        call.state.set(DOWNSTREAM, Mechanism(cls="LOCAL", type="KERNEL", parameters=parameters))
        return request.connection

    async def close(self, call, connection, next):
        """Answer no Close in time, as a socket does whose process is dead and that somebody else holds."""
        self.absent.append(bool(call.get(ABSENT)))
        if self.mute:
            try:
                async with asyncio.timeout_at(call.deadline or asyncio.get_running_loop().time() + 5):
                    await asyncio.sleep(60)
            except TimeoutError:
                raise TimedOut("nobody answers") from None


def process():
    return subprocess.Popen(["sleep", "60"])


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def watching(scenario, *, lives, monkeypatch, grace=0.3, whole=False, place="file:///run/netns/far"):
    """Run a scenario with two wires that one process has granted."""
    monkeypatch.setattr(watch_endpoints, "GRACE", grace)
    first = process()

    async def main():
        datapath, told, endpoint = FakeDatapath(), asyncio.Queue(), Endpoint()
        endpoint.place = place
        parted = []
        element = WatchEndpoints(
            datapath, told.put_nowait, part=parted.append, lives=lives if callable(lives) else lambda _: lives
        )
        element.parted = parted
        handler = chain(Begin(), element, endpoint)

        async def ask(pid):
            endpoint.pid = pid
            for name in ("c1", "c2"):
                path = Path(index=0, path_segments=[PathSegment(name="fwd"), PathSegment(name="nse")])
                made = Connection(id=name, path=path)
                await handler.request(Call(), NetworkServiceRequest(connection=made))

        async with handler.running():
            await ask(first.pid)
            mesh = SimpleNamespace(handler=handler, element=element, endpoint=endpoint)
            await scenario(first, ask, told, datapath, *([mesh] if whole else []))
            endpoint.mute = False
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


def test_an_endpoint_with_a_socket_ends_with_its_process(monkeypatch, tmp_path):
    """Wires of memif and vhost-user are the process's own memory: no namespace is looked for."""
    (tmp_path / "x.memif").touch()

    async def scenario(first, ask, told, datapath):
        end(first)
        event = await asyncio.wait_for(told.get(), 5)
        assert (set(event.connections), datapath.silenced) == ({"c1", "c2"}, {"c1", "c2"})

    place = f"file://{tmp_path}/x.memif"
    watching(scenario, lives=inhabited, monkeypatch=monkeypatch, grace=60, place=place)


def test_a_namespace_that_dies_after_its_process_is_noticed_within_the_grace(monkeypatch):
    """A pod ends process by process: whoever is last is looked for again, and told once."""
    looks = []

    def lives(path):
        looks.append(path)
        return len(looks) < 3

    async def scenario(first, ask, told, datapath):
        end(first)
        event = await asyncio.wait_for(told.get(), 5)
        assert set(event.connections) == {"c1", "c2"}
        await asyncio.sleep(0.2)
        assert told.empty()
        assert len(looks) == 3

    watching(scenario, lives=lives, monkeypatch=monkeypatch, grace=60)


def test_nobody_waits_for_a_dead_endpoint(monkeypatch):
    """Its URL is silent and parted with; to ask for it again is refused, a Close is not waited for."""

    async def scenario(first, ask, told, datapath, mesh):
        end(first)
        await asyncio.wait_for(told.get(), 5)
        assert (mesh.element.is_silent(URL), mesh.element.parted) == (True, [URL])
        mesh.endpoint.mute = True
        begun = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match="has died"):
            await ask(first.pid)
        for name in ("c1", "c2"):
            await mesh.handler.close(Call(), Connection(id=name))
        assert asyncio.get_running_loop().time() - begun < 2
        second = process()
        try:
            await ask(second.pid)
            assert not mesh.element.is_silent(URL)
        finally:
            end(second)

    watching(scenario, lives=False, monkeypatch=monkeypatch, whole=True)


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


def test_a_close_of_the_dead_says_so(monkeypatch):
    """Whoever would dial knows that nobody is there; for the living nothing is said."""

    async def scenario(first, ask, told, datapath, mesh):
        await mesh.handler.close(Call(), Connection(id="c2"))
        end(first)
        await asyncio.wait_for(told.get(), 5)
        await mesh.handler.close(Call(), Connection(id="c1"))
        assert mesh.endpoint.absent == [False, True]

    watching(scenario, lives=False, monkeypatch=monkeypatch, whole=True)
