"""Reaching somebody: a dial that waits for who is to come, and a call made again where it was cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from google.protobuf.message import Message

from nsmesh.core.call import Call
from nsmesh.core.clock import Clock
from nsmesh.core.element import Handler
from nsmesh.core.ending import hands_over
from nsmesh.core.errors import (
    Internal,
    MeshError,
    Outdated,
    TimedOut,
    Unanswered,
    Unavailable,
    Unreachable,
)
from nsmesh.core.life import LIFE
from nsmesh.core.peering import Peers, at_hand, is_awaited, peer_of, renewed
from nsmesh.model.copying import copy_of

log = structlog.get_logger()

AWAITED = 10.0
"""Seconds for which a dial begins again, where somebody is to come who is not there yet."""
TRIES = 3
"""How often a Request, Close or Find is made, whose connection ends before the answer comes."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Reaching:
    """Turns a target, a URL or a Handler of this process, into the Handler that answers there.

    ``timeout`` in seconds bounds one dial; None leaves it to the deadline of the call.
    """

    def __init__(self, peers: Peers | None, timeout: float | None, clock: Callable[[], Clock]) -> None:
        self._peers = peers
        self._timeout = timeout
        self._clock = clock

    async def dial(self, call: Call, target: Handler | str) -> Handler:
        """Return who answers at ``target``; raises Unreachable, Unauthorized, TimedOut."""
        if not isinstance(target, str):
            return target
        if self._peers is None:
            raise Internal(f"cannot dial {target}: this chain reaches roles of its own process only")
        return at_hand(self._peers, target) or await self._reach(call, self._peers, target)

    async def _reach(self, call: Call, peers: Peers, target: str) -> Handler:
        clock = self._clock()
        end, awaited = clock.monotonic() + AWAITED, False
        while True:
            try:
                return await _once(peers, target, _least(self._timeout, call.remaining()))
            except (TimedOut, Unreachable):
                if hands_over():  # whoever is to come may wait for our own end
                    raise
                before, awaited = awaited, is_awaited(peers, target)
                if not (before or awaited) or clock.monotonic() >= end:
                    raise

    async def answered(
        self, call: Call, target: Handler | str, message: M, work: Callable[[Handler, M], Awaitable[T]]
    ) -> T:
        """Dial and do ``work`` with who answers; again on a new connection where an answer was cut off.

        So is a refresh whose answer shows that the peer has another key by now. A first Request is not, since
        it is undone when it fails: whoever asks again finds the new connection.
        """
        handler = await self.dial(call, target)
        if not isinstance(target, str) or peer_of(handler).in_process:
            return await work(handler, message)
        spare = copy_of(message)  # elements behind us write into theirs
        for _ in range(TRIES - 1):
            try:
                return await work(handler, message)
            except Unanswered as error:
                log.info("asked again: the connection ended before the answer", at=target, error=str(error))
                why: MeshError = error
            except Outdated as error:
                life = call.state.get(LIFE)
                if not self.renewed(target, handler, error) or life is None or not life.up:
                    raise
                why = error
            try:
                handler = await self.dial(call, target)
            except MeshError:
                raise why from None
            message = copy_of(spare)
        return await work(handler, message)

    def renewed(self, target: Handler | str, handler: Handler, error: Outdated) -> bool:
        """Leave the connection of ``handler`` to what runs on it; say whether the next dial gives another."""
        if not isinstance(target, str) or self._peers is None or at_hand(self._peers, target) is not handler:
            return False
        log.info("dialled anew: the peer has another key by now", at=target, error=str(error))
        renewed(self._peers, target)
        return True


async def _once(peers: Peers, target: str, limit: float | None) -> Handler:
    try:
        async with asyncio.timeout(limit):
            return await peers.get(target)
    except TimeoutError as error:
        raise Unreachable(
            target,
            f"nobody at {target} answered a dial in {limit:.3g} s",
            remedy="check that the component runs and listens there",
        ) from error
    except Unavailable as error:
        raise Unreachable(target, error.what, remedy=error.remedy) from error


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
