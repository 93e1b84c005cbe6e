"""The client of an init container: asks until all wires are up, then ends and leaves them.

Whoever comes after it keeps them: a client of the same name restores its connections from the manager. Until
then they live as long as their tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from nsmesh.chains.runtime import Runtime
from nsmesh.chains.settings_nsc import NscInitSettings
from nsmesh.chains.wanted import PAUSE, Wanted, wanted_services
from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain, chain
from nsmesh.core.errors import MeshError
from nsmesh.core.peering import Dialled
from nsmesh.elements.client_info import ClientInfo
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.keep_apart import KeepApart
from nsmesh.elements.send_fd import SendFdClient
from nsmesh.elements.update_path import UpdatePath

log = structlog.get_logger()


@asynccontextmanager
async def initial_client(settings: NscInitSettings, runtime: Runtime) -> AsyncIterator[Chain]:
    """Run the chain while the block runs: no refresh, no heal, and no Close of what succeeded."""
    client = chain(
        UpdatePath(settings.name),
        BeginClient(),
        ClientInfo(settings.place),
        KeepApart(),
        Dial(runtime.peers, target=settings.connect_to, timeout=settings.dial_timeout),
        SendFdClient(),
        ClientToken(runtime.tokens),
        *runtime.checks(),
        end=Dialled(),
        name=f"client {settings.name}",
        clock=runtime.clock,
    )
    async with client.running():
        yield client


async def ask_once(settings: NscInitSettings, client: Chain) -> None:
    """Ask for the services one after another, each every 200 ms until it is there."""
    wires = [Wanted.of(settings, number, url) for number, url in enumerate(wanted_services(settings))]
    for wire in wires:
        await _ask(settings, client, wire)
    log.info("all wires are up", wires=len(wires))


async def _ask(settings: NscInitSettings, client: Chain, wire: Wanted) -> None:
    while True:
        call = Call(peer=Peer(in_process=True)).within(settings.request_timeout)
        try:
            answer = await client.request(call, wire.request(settings.name, None, reselect=False))
        except MeshError as error:
            log.warning("request failed", connection=wire.id, error=str(error))
            await asyncio.sleep(PAUSE)
        else:
            log.info("wire up", connection=wire.id, endpoint=answer.network_service_endpoint_name)
            return
