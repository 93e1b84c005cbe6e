"""An identity that is still good outlives a Workload API that comes back without a memory."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack

import pytest

from nsmesh.chains.workload_api import served_workload_api
from nsmesh.chains.workload_client import fetched_identity
from nsmesh.core import virtual
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import Entries, Entry
from nsmesh.security.workload_api import WorkloadApi

ME = frozenset({f"unix:uid:{os.geteuid()}"})
LIFE = 3600.0


def api_in(tmp_path, clock):
    """Return an API that has issued nothing yet, of the CA that is kept in a folder."""
    ca = CertificateAuthority.open(tmp_path / "ca", "my.nsm", clock=clock)
    return WorkloadApi(ca, Entries(Entry(ME, "spiffe://my.nsm/x", LIFE)), clock=clock)


@pytest.mark.parametrize("purged", [False, True], ids=["same CA", "another CA"])
def test_an_api_that_forgot_what_it_issued(tmp_path, purged):
    """The SVID stays where the bundle vouches for it, and is replaced before its life ends; else at once."""
    clock = virtual.VirtualClock()
    url = f"unix://{tmp_path}/api.sock"

    async def main():
        async with AsyncExitStack() as stack:
            async with served_workload_api(api_in(tmp_path, clock), url, clock=clock):
                source = await stack.enter_async_context(fetched_identity(url, clock=clock))
            first, rotations = source.svid, []
            source.on_rotation(lambda: rotations.append(clock.now()))
            await asyncio.sleep(LIFE / 10)
            if purged:
                shutil.rmtree(tmp_path / "ca")
            await stack.enter_async_context(served_workload_api(api_in(tmp_path, clock), url, clock=clock))
            await asyncio.sleep(LIFE / 10)
            assert (source.svid is first) is not purged
            assert len(rotations) == purged
            await asyncio.sleep(LIFE / 2)
            assert source.svid is not first
            assert source.svid.not_after > clock.now() + LIFE / 4

    virtual.run(main())
