"""A mesh to break things in: a stream counts what a killed role loses, and nothing is left at the end."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from mesh_lab import responder

from nsmesh.chaos import running
from nsmesh.chaos.faults import Faults
from nsmesh.chaos.ground import ground
from nsmesh.chaos.scenarios import IDLE, chosen
from nsmesh.chaos.streams import stream
from nsmesh.chaos.turns import Turns
from nsmesh.core.errors import Internal, MeshError
from nsmesh.datapath import netns

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


async def _served(one, space):
    for _ in range(200):
        try:
            await one.connect("kernel://ping/nsm-1", space, "fresh")
        except MeshError:
            await asyncio.sleep(0.05)
        else:
            return
    pytest.fail("no new Request was served")


async def _broken():
    async with ground("--separate") as one:
        await one.apply(responder())
        client, fresh = one.space("client"), one.space("fresh")
        await one.connect("kernel://ping/nsm-1", client, "client")
        (row,) = await one.rows("connections")
        address = row["peer_address"][0].partition("/")[0]
        target = f"{netns.RUN_NETNS}/{one.paths.netns('responder')}"
        async with stream(one.folder, client, address, [target], 10_000) as flow:
            await asyncio.sleep(0.5)
            for unit in ("registry", "nsmgr", "forwarder", "responder"):
                os.kill(await one.pid(unit), signal.SIGKILL)
            await _served(one, fresh)
            found = await flow.end()
        leaks = (await one.status())["leaks"]
    return one, found, leaks


def test_all_roles_are_killed_under_a_stream():
    """No packet of the stream is lost, new Requests are served, and the mesh takes itself away."""
    one, found, leaks = asyncio.run(_broken())
    assert found.sent > 1000
    assert (found.lost, found.duplicates, leaks) == (0, 0, [])
    assert not one.folder.exists()
    assert not list(Path(netns.RUN_NETNS).glob(f"{one.paths.mesh}*"))


def test_a_fault_that_cannot_be_done_is_told_and_the_rest_goes_on(monkeypatch):
    """It counts as a repetition that never got well; the next one has another mesh."""
    strike, meshes = Faults.strike, []

    async def fails_once(self, *given):
        meshes.append(self._mesh)
        if len(meshes) == 1:
            raise Internal("nsm restart alpha did not end")
        return await strike(self, *given)

    async def seen():
        return [one async for one in running.run(chosen(("local-alpha-sigterm",), 2), IDLE, Turns())]

    monkeypatch.setattr(Faults, "strike", fails_once)
    (outcome,) = asyncio.run(seen())
    row = outcome.row()
    assert (row["repetitions"], row["not_recovered"], row["leaks"], row["kept"]) == (2, 1, [], False)
    assert row["errors"] == ["nsm restart alpha did not end"]
    assert len({id(mesh) for mesh in meshes}) == 2
