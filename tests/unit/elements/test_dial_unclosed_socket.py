"""Dial: a socket that came as a descriptor is held for as long as a Close is owed there."""

from __future__ import annotations

import asyncio
import contextlib
import os

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import chain
from nsmesh.core.errors import TimedOut
from nsmesh.core.peering import TARGET, Dialled
from nsmesh.core.unclosed import LONGEST
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.dial import Dial
from nsmesh.elements.hold_socket import HoldSocket
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment
from nsmesh.rpc.files import Files


class Silent:
    """A next hop that answers Requests, and Closes as soon as it is told to."""

    def __init__(self):
        self.peer = Peer(spiffe_id="spiffe://mesh/endpoint")
        self.silent = True
        self.asked = []

    async def get(self, url):
        self.asked.append(url)
        return self

    async def request(self, call, request):
        return request.connection

    async def close(self, call, connection):
        if self.silent:
            await asyncio.sleep(call.remaining())
            raise TimedOut("no answer")


def received(files, path):
    """Hold a file as if it had been received, and return its URL."""
    path.touch()
    fd = os.open(path, os.O_PATH)
    found = os.fstat(fd)
    return f"unix://{files.adopt('registry', (found.st_dev, found.st_ino), fd)}"


def test_the_socket_of_a_silent_next_hop_is_held_until_it_has_closed(tmp_path):
    """Its number leads nowhere else, though neither the connection nor the registry holds it any more."""

    async def main():
        files, far = Files(), Silent()
        dial = Dial(far, files=files)
        made = chain(Begin(), HoldSocket(files), dial, end=Dialled(), name="test", clock=VirtualClock())
        async with made.running():
            url = received(files, tmp_path / "a")
            connection = Connection(id="c-0", path=Path(path_segments=[PathSegment(name="c", id="c-0")]))
            call = Call(values={TARGET: url}).within(15)
            answer = await made.request(call, NetworkServiceRequest(connection=connection))
            files.release("registry")
            with contextlib.suppress(TimedOut):
                await made.close(Call().within(1), answer)
            await asyncio.sleep(3 * LONGEST)
            assert dial.unclosed.owed == [(url, "c-0")]
            assert len(files) == 1
            assert set(far.asked) == {url}
            far.silent = False
            await asyncio.sleep(3 * LONGEST)
            assert dial.unclosed.owed == []
            assert len(files) == 0, "nobody needs it any more"

    run(main())


def test_what_is_still_owed_at_the_end_holds_no_socket(tmp_path):
    """A chain that ends lets go of the sockets at which a Close is owed, also where it was never tried."""

    async def main():
        files, far = Files(), Silent()
        made = chain(Begin(), Dial(far, files=files), end=Dialled(), name="test", clock=VirtualClock())
        async with made.running():
            url = received(files, tmp_path / "a")
            call = Call(values={TARGET: url}).within(15)
            answer = await made.request(call, NetworkServiceRequest(connection=Connection(id="c-0")))
            files.release("registry")
            assert len(files) == 0, "no one holds it yet"
            url = received(files, tmp_path / "b")
            call = Call(values={TARGET: url}).within(15)
            answer = await made.request(call, NetworkServiceRequest(connection=Connection(id="c-1")))
            with contextlib.suppress(TimedOut):
                await made.close(Call().within(0.1), answer)
            files.release("registry")
            assert len(files) == 1
        assert len(files) == 0

    run(main())
