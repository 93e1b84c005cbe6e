"""A network service that several endpoints provide, each with an identity of its own.

Its name belongs to who registered it first. The others need not register it to provide it, as long as it is
there as they would have it; when it is gone, one of them must.
"""

from __future__ import annotations

import asyncio

import structlog

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.core.errors import MeshError
from nsmesh.core.peering import closing
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Entry, NetworkService, NetworkServiceQuery, NetworkServiceResponse

log = structlog.get_logger()

LOOK = 5.0
"""Seconds between two looks whether a service of somebody else is still there."""
ANSWER = 5.0
"""Seconds that such a look may take."""


async def _there(chain: Chain, entry: NetworkService) -> bool:
    """Whether a service of this name and payload is registered. Raises MeshError."""
    query = NetworkServiceQuery(network_service=NetworkService(name=entry.name))
    async with closing(chain.find(Call(peer=Peer(in_process=True)).within(ANSWER), query)) as found:
        async for item in found:
            if isinstance(item, NetworkServiceResponse):
                service = item.network_service
                if service.name == entry.name and service.payload == entry.payload:
                    return True
    return False


async def provided(chain: Chain, entry: Entry) -> bool:
    """Whether ``entry`` is a service that is registered already, with the same payload."""
    try:
        return isinstance(entry, NetworkService) and await _there(chain, entry)
    except MeshError as error:
        log.info("cannot look for a service", name=entry.name, error=str(error))
        return False


async def register_when_gone(chain: Chain, entry: Entry) -> None:
    """Register a service of somebody else once it is not there any more."""
    assert isinstance(entry, NetworkService)
    while True:
        await asyncio.sleep(LOOK)
        try:
            if not await _there(chain, entry):
                await chain.register(Call(peer=Peer(in_process=True)), copy_of(entry))
                log.info("registered a service that was gone", name=entry.name)
                return
        except MeshError as error:
            log.debug("a service of somebody else is not seen for now", name=entry.name, error=str(error))
