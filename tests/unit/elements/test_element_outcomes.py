"""What becomes of Requests of a node's clients is told to whoever listens."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Unauthorized
from nsmesh.elements.outcomes import Outcomes
from nsmesh.elements.update_path import UpdatePath
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest


class Next(Element):
    """The rest of the chain: changes what it is given, and may refuse."""

    refuses = False

    async def request(self, call, request, next):
        del request.mechanism_preferences[:]
        request.connection.labels.clear()
        if self.refuses:
            raise Unauthorized("refused by policy next_token_signed")
        request.connection.network_service_endpoint_name = "nse"
        return request.connection


def request(*path: str) -> NetworkServiceRequest:
    made = NetworkServiceRequest(
        connection=Connection(id=path[-1], network_service="ping", labels={"app": "x"}),
        mechanism_preferences=[Mechanism(type="KERNEL", parameters={"name": "nsm-1"})],
    )
    for name in path:
        made.connection.path.path_segments.add(name=name, id=name)
    made.connection.path.index = len(path) - 1
    return made


def test_a_client_s_requests_are_told():
    """Granted or refused, with who asked and what for; those of other nodes and functions are not."""
    outcomes, rest = Outcomes(), Next()
    made = chain(UpdatePath("nsmgr"), outcomes, Begin(), rest)
    told = []
    peer = Peer(spiffe_id="spiffe://td/ns/a/pod/b")

    async def main():
        async with made.running():
            await made.request(Call(peer=peer), request("unheard"))
            outcomes.listeners.append(told.append)
            await made.request(Call(peer=peer), request("nsc"))
            rest.refuses = True
            with pytest.raises(Unauthorized):
                await made.request(Call(peer=peer), request("other"))
            with pytest.raises(Unauthorized):
                await made.request(Call(peer=peer), request("nsc", "elsewhere", "forwarder"))

    asyncio.run(main())
    granted, refused = told
    assert (granted.error, granted.connection.network_service_endpoint_name) == (None, "nse")
    assert granted.seconds >= 0
    assert refused.peer == peer
    assert str(refused.error) == "refused by policy next_token_signed"
    assert refused.connection.mechanism.parameters["name"] == "nsm-1"
    assert refused.connection.labels == {"app": "x"}
    assert refused.connection.path.index == 1
