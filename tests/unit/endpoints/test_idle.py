"""Idle: nobody has used the endpoint for a while."""

from __future__ import annotations

import asyncio
import contextlib

from nsmesh.core import virtual
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Chain, chain
from nsmesh.core.errors import Refused
from nsmesh.core.probes import Inject
from nsmesh.endpoints.idle import Idle
from nsmesh.model.messages import Connection, NetworkServiceRequest


def request(connection_id: str) -> NetworkServiceRequest:
    return NetworkServiceRequest(connection=Connection(id=connection_id))


def test_it_is_idle_after_the_last_close_and_not_before():
    """Two connections; the time counts from the Close of the second, and a refresh changes nothing."""

    async def main() -> None:
        fired: list[float] = []
        loop = asyncio.get_running_loop()
        server: Chain = chain(Begin(), Idle(60, lambda: fired.append(loop.time())))
        async with server.running():
            first = await server.request(Call(), request("a"))
            second = await server.request(Call(), request("b"))
            await asyncio.sleep(100)
            await server.request(Call(), request("b"))
            await server.close(Call(), first)
            await asyncio.sleep(100)
            assert fired == []
            await server.close(Call(), second)
            await asyncio.sleep(100)
            assert fired == [260.0]

    virtual.run(main())


def test_an_endpoint_that_nobody_asks_is_idle():
    """From its start on; a Request that fails does not keep it alive."""

    async def main() -> None:
        fired: list[float] = []
        loop = asyncio.get_running_loop()
        idle = Idle(60, lambda: fired.append(loop.time()))
        server = chain(Begin(), idle, Inject(lambda: Refused("no")))
        async with server.running():
            await asyncio.sleep(30)
            with contextlib.suppress(Refused):
                await server.request(Call(), request("a"))
            await asyncio.sleep(100)
        assert fired == [90.0]

    virtual.run(main())


def test_zero_is_never():
    """The default of the field."""

    async def main() -> None:
        fired: list[bool] = []
        async with chain(Begin(), Idle(0, lambda: fired.append(True))).running():
            await asyncio.sleep(1e6)
        assert fired == []

    virtual.run(main())
