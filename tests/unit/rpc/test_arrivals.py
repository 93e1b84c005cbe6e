"""Whoever dials without end is kept out for a moment; others are not."""

import asyncio

import pytest

from nsmesh import rpc
from nsmesh.core.errors import MeshError
from nsmesh.rpc.arrivals import ORIGINS, Arrivals


def test_each_place_has_its_own_count():
    """The limit holds for one place and one window; the next window begins anew."""
    arrivals = Arrivals(3, 10.0)
    assert [arrivals.count("here", 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert arrivals.count("there", 1.0)
    assert not arrivals.count("here", 9.9)
    assert arrivals.count("here", 10.0)


def test_places_are_forgotten():
    """However many places there are, a bounded number is remembered."""
    arrivals = Arrivals(1, 10.0)
    for number in range(2 * ORIGINS):
        assert arrivals.count(number, 0.0)
    assert len(arrivals) == ORIGINS


def test_a_server_takes_no_more(tmp_path):
    """Beyond the limit connections of one process are closed; in the next window it is served again."""

    async def main():
        limits = rpc.Limits(arrivals=3, flood_window=0.3)
        async with rpc.serve(f"unix://{tmp_path}/s.sock", {}, limits=limits) as server:
            clients = [await rpc.connect(server.url) for _ in range(3)]
            with pytest.raises(MeshError):
                await rpc.connect(server.url)
            await asyncio.sleep(0.35)
            clients.append(await rpc.connect(server.url))
            for client in clients:
                await client.aclose(0)

    asyncio.run(main())
