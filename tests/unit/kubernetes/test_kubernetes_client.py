"""What answers of an API server mean, where a real one gives them only now and then."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.errors import MeshError, Unauthorized, Unavailable
from nsmesh.kubernetes import client

httpx = pytest.importorskip("httpx2")
FORBIDDEN = {"kind": "Status", "code": 403, "message": "pods is forbidden"}


def outcomes(*answers, settling=60.0) -> list[type[MeshError]]:
    """Return what calls raise that are answered one after the other; None: nobody answers."""
    left = list(answers)

    def answer(request):
        found = left.pop(0)
        if found is None:
            raise httpx.ConnectError("away", request=request)
        return found

    async def main():
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(base_url="https://server", transport=transport) as http:
            api = client.Api(http, "default")
            raised = []
            for _ in answers:
                with pytest.raises(MeshError) as told:
                    await api.call("GET", "/api/v1/pods")
                raised.append(told.type)
            return raised

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "SETTLING", settling)
        return asyncio.run(main())


def test_a_server_that_has_just_started_may_refuse_what_it_allows():
    """Such a refusal is as good as no answer; at any other time it is what it says."""
    forbidden = [httpx.Response(403, json=FORBIDDEN) for _ in range(3)]
    assert outcomes(forbidden[0]) == [Unauthorized]
    assert outcomes(None, forbidden[1]) == [Unavailable, Unavailable]
    assert outcomes(None, forbidden[2], settling=-1.0) == [Unavailable, Unauthorized]


def test_what_answers_and_is_no_api_server():
    """A proxy's page, or a list, is no object: it is said that this is no API server."""
    assert outcomes(httpx.Response(200, text="<html>"), httpx.Response(200, json=[])) == [Unavailable] * 2
