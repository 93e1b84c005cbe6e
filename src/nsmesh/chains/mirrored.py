"""The wires of a manager's clients, shown in the API server of its cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from nsmesh.chains.settings import NsmgrSettings
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.elements.outcomes import Outcomes
from nsmesh.model.messages import ConnectionEvent, MonitorScopeSelector

if TYPE_CHECKING:
    from nsmesh.kubernetes.client import Api

log = structlog.get_logger()
Take = Callable[[ConnectionEvent], None]


def outcomes_for(settings: NsmgrSettings) -> Outcomes | None:
    """Return the element that tells what becomes of Requests, where somebody listens."""
    return Outcomes() if settings.mirror_connections or settings.tell_pods else None


@asynccontextmanager
async def mirrored(settings: NsmgrSettings, server: Chain, outcomes: Outcomes | None) -> AsyncIterator[None]:
    """Show what ``server`` and ``outcomes`` tell of while the block runs, if the settings ask for it."""
    if outcomes is None:
        yield
        return
    from nsmesh.kubernetes.client import connected  # noqa: PLC0415 - an extra

    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connected(rate=settings.mirror_rate))
        takes: list[Take] = []
        if settings.mirror_connections:
            takes.append(await _mirror(settings, server, outcomes, api, stack))
        if settings.tell_pods:
            takes.append(await _teller(settings, server, outcomes, api, stack))
        following = server.scope.spawn(_follow(server, takes), name="follow connections to show")
        stack.callback(following.cancel)
        stack.callback(outcomes.listeners.clear)
        yield


async def _mirror(
    settings: NsmgrSettings, server: Chain, outcomes: Outcomes, api: Api, stack: AsyncExitStack
) -> Take:
    from nsmesh.kubernetes.mirror import ConnectionMirror  # noqa: PLC0415 - an extra

    node = settings.node_name or settings.name
    mirror = ConnectionMirror(api, node, own_pod=settings.pod_name)
    await stack.enter_async_context(mirror.running(server.scope))
    outcomes.listeners.append(mirror.take_outcome)
    log.info("wires are shown in the API server", node=node)
    return mirror.take


async def _teller(
    settings: NsmgrSettings, server: Chain, outcomes: Outcomes, api: Api, stack: AsyncExitStack
) -> Take:
    from nsmesh.kubernetes.pod_teller import PodTeller  # noqa: PLC0415 - likewise

    if not settings.node_name:
        raise Invalid("NODE_NAME is not set", remedy="set it from spec.nodeName, by the downward API")
    teller = PodTeller(api, settings.node_name, server.scope)
    await stack.enter_async_context(teller.running())
    outcomes.listeners.append(teller.take_outcome)
    log.info("pods are told of their wires", node=settings.node_name)
    return teller.take


async def _follow(server: Chain, takes: Sequence[Take]) -> None:
    """Tell of each change until the manager stops."""
    try:
        async for event in server.monitor(Call(peer=Peer(in_process=True)), MonitorScopeSelector()):
            for take in takes:
                take(event)
    except Unavailable as error:
        log.debug("wires are shown no more", reason=str(error))
