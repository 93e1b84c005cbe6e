"""For tests that hold of each driver: makes one in the way of its kind, and takes its switch away."""

import asyncio
import shutil
from contextlib import asynccontextmanager, contextmanager

import pytest
from ovs_lab import driver

from nsmesh.datapath.linux import LinuxDatapath

LINUX, OWN_PORTS, SPARE_PORTS = "linux", "ovs", "ovs-ports-in-advance"
needs_switch = pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed")
SWITCHED = [pytest.param(kind, marks=needs_switch) for kind in (OWN_PORTS, SPARE_PORTS)]
KINDS = [LINUX, *SWITCHED]


@contextmanager
def drivers(kind, tmp_path, pods=()):
    """Yield what makes drivers of a kind, of one node; its switch, if there is one, goes afterwards."""
    if kind == LINUX:
        yield LinuxDatapath
        return
    with driver(tmp_path, pods=0, spares=2 if kind == SPARE_PORTS else 0) as (make,):
        yield lambda: make(namespaces=lambda: pods)


@asynccontextmanager
async def running(make):
    """Yield a driver, with ports in advance where it shall have some."""
    datapath = make()
    try:
        if hasattr(datapath, "switch"):
            await datapath.switch.ensure()
            await datapath.switch.spares.fill()
        yield datapath
    finally:
        await datapath.aclose()


def run(scenario, kind, tmp_path, *pods):
    """Run a scenario with a driver of a kind."""

    async def main(make):
        async with running(make) as datapath:
            return await scenario(datapath)

    with drivers(kind, tmp_path, pods) as make:
        return asyncio.run(main(make))
