"""The client of an init container, over the sockets of a mesh."""

import asyncio

from descriptor_mesh import DescriptorMesh

from nsmesh.chains import processes
from nsmesh.chains.settings_nsc import NscInitSettings
from nsmesh.core.errors import Refused


async def settings_of(mesh):
    return NscInitSettings(
        name="init",
        connect_to=mesh.url("nsmgr"),
        network_services=("kernel://s/one", "kernel://s/two"),
    )


def test_it_ends_when_all_wires_are_up_and_leaves_them():
    """It asks on after a refusal, returns by itself, and closes nothing that succeeded."""

    async def main():
        async with DescriptorMesh() as mesh:
            mesh.fault.times = 1
            stop = asyncio.Event()
            async with asyncio.timeout(5):
                await processes.serve_nsc_init(await settings_of(mesh), stop)
            held = {one.path.path_segments[0].id for one in mesh.manager.begin.connections}
            assert {"init-0", "init-1"} <= held
            assert mesh.fault.times == 0

    asyncio.run(main())


def test_it_ends_when_it_is_told_to():
    """Without an endpoint that grants anything it goes on asking, until it is stopped."""

    async def main():
        async with DescriptorMesh() as mesh:
            mesh.fault.times = None
            mesh.fault.error = lambda: Refused("no")
            stop = asyncio.Event()
            running = asyncio.ensure_future(processes.serve_nsc_init(await settings_of(mesh), stop))
            await asyncio.sleep(0.5)
            assert not running.done()
            stop.set()
            async with asyncio.timeout(5):
                await running
            assert mesh.manager.begin.connections == []

    asyncio.run(main())
