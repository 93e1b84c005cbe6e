"""The wires of a manager's clients, shown in the API server of its cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from nsmesh.chains.settings import NsmgrSettings
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.core.errors import Unavailable
from nsmesh.model.messages import MonitorScopeSelector

if TYPE_CHECKING:
    from nsmesh.kubernetes.mirror import ConnectionMirror

log = structlog.get_logger()


@asynccontextmanager
async def mirrored(settings: NsmgrSettings, server: Chain) -> AsyncIterator[None]:
    """Show what ``server`` tells of while the block runs, if the settings ask for it."""
    if not settings.mirror_connections:
        yield
        return
    from nsmesh.kubernetes.client import connected  # noqa: PLC0415 - an extra
    from nsmesh.kubernetes.mirror import ConnectionMirror  # noqa: PLC0415 - likewise

    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connected(rate=settings.mirror_rate))
        node = settings.node_name or settings.name
        mirror = ConnectionMirror(api, node, own_pod=settings.pod_name)
        await stack.enter_async_context(mirror.running(server.scope))
        following = server.scope.spawn(_follow(server, mirror), name="follow connections to mirror")
        stack.callback(following.cancel)
        log.info("wires are shown in the API server", node=node)
        yield


async def _follow(server: Chain, mirror: ConnectionMirror) -> None:
    """Tell the mirror of each change until the manager stops."""
    try:
        async for event in server.monitor(Call(peer=Peer(in_process=True)), MonitorScopeSelector()):
            mirror.take(event)
    except Unavailable as error:
        log.debug("the mirror ends", reason=str(error))
