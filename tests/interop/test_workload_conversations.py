"""What Go components ask of the Workload API, asked by ours; and what they are answered, answered by ours."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from interop_fields import plain
from interop_stage import in_virtual_time
from interop_trace import load

from nsmesh import rpc
from nsmesh.api import workload_pb2
from nsmesh.chains.workload_api import served_workload_api
from nsmesh.chains.workload_client import fetched_identity
from nsmesh.core.errors import MeshError, Remote, Status
from nsmesh.core.virtual import VirtualClock
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import Entries, Entry
from nsmesh.security.workload_api import WorkloadApi

FETCH = "/SpiffeWorkloadAPI/FetchX509SVID"
CLOSE = 0.6
"""Seconds by which a repeated call may come earlier or later."""
ALL = [
    (name, role)
    for name in ("workload-api", "workload-api-cancelled", "workload-api-errors", "workload-api-security")
    for role in load(name).roles()
]


def recorded(name, role):
    return [call for call in load(name).calls if call.client == role]


def headers(metadata):
    """Return what is said besides HTTP/2 and gRPC themselves."""
    own = {"te", "content-type", "user-agent", "grpc-accept-encoding", "grpc-timeout"}
    return [(key, value) for key, value in metadata if not key.startswith(":") and key not in own]


def made(tmp_path, clock, spiffe_id):
    ca = CertificateAuthority.open(tmp_path / "ca", "test.nsm", clock=clock)
    return WorkloadApi(ca, Entries(Entry(frozenset({"x"}), spiffe_id)), clock=clock, attestor=lambda _: {"x"})


@pytest.mark.parametrize(("name", "role"), ALL)
def test_ours_asks_as_go_asks(name, role, tmp_path):
    """The same call with the same header; after an error again, no later than Go; then no more."""
    calls = recorded(name, role)

    async def main():
        clock = VirtualClock(time.time())
        api = made(tmp_path, clock, load(name).spiffe_id(role))
        seen = []

        async def fetch(call, body):
            assert body == calls[0].requests[0].raw == b""
            assert list(call.metadata) == headers(calls[0].metadata)
            seen.append(asyncio.get_running_loop().time())
            one = calls[len(seen) - 1]
            if one.status:
                raise Remote(Status(one.status), one.status_message)
            async for answer in api.fetch_x509_svid(call.metadata, call.peer, body):
                yield answer

        url = f"unix://{tmp_path}/api.sock"
        async with rpc.serve(url, {FETCH: rpc.ServerStream(fetch)}):
            final = calls[-1].status
            if final:
                with pytest.raises(MeshError) as caught:
                    async with fetched_identity(url, clock=clock):
                        pass
                assert caught.value.status == final
            else:
                async with fetched_identity(url, clock=clock) as source:
                    assert source.spiffe_id == load(name).spiffe_id(role)
            await asyncio.sleep(60)
        assert len(seen) == len(calls)
        pauses = [two.t - one.t for one, two in pairwise(calls)]
        for ours, theirs in zip(pairwise(seen), pauses, strict=True):
            assert 0 < ours[1] - ours[0] < theirs + CLOSE

    in_virtual_time(main())


@pytest.mark.parametrize("role", load("workload-api").roles())
def test_ours_answers_what_go_was_content_with(role, tmp_path):
    """A recorded call gets an answer of the same shape at once, and stays open."""
    (call,) = recorded("workload-api", role)
    trace = load("workload-api")

    async def main():
        clock = VirtualClock(time.time())
        api = made(tmp_path, clock, trace.spiffe_id(role))
        url = f"unix://{tmp_path}/api.sock"
        async with served_workload_api(api, url, clock=clock):
            client = await rpc.connect(url, timeout=5)
            try:
                stream = client.stream(call.method, call.requests[0].raw, metadata=headers(call.metadata))
                first = workload_pb2.X509SVIDResponse.FromString(await anext(stream))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 60)
            finally:
                await client.aclose(0)
        ours, theirs = plain(first), call.answers[0].body
        assert set(ours) == set(theirs)
        assert [set(svid) for svid in ours["svids"]] == [set(svid) for svid in theirs["svids"]]
        assert ours["svids"][0]["spiffe_id"] == theirs["svids"][0]["spiffe_id"]

    in_virtual_time(main())
