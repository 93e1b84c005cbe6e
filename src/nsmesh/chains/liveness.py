"""Whether packets go through a kernel wire: the client's own look at it, whatever the control plane says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from ipaddress import ip_interface
from typing import Any

from nsmesh.core.errors import MeshError, NotFound
from nsmesh.datapath import probe
from nsmesh.model.messages import IP, KERNEL, MPLS, Connection

LIMIT = 1.0
"""Seconds that one look may take."""


Look = Callable[[Connection], Coroutine[Any, Any, bool]]


def any_of(*looks: Look) -> Look:
    """Return a look that is content as soon as one of ``looks`` is; all look at the same time.

    Some wires carry IP and nothing below it, some functions on the way let no echo pass. Raises what one
    raises where none of the others is content.
    """

    async def look(connection: Connection) -> bool:
        return await first_of([one(connection) for one in looks])

    return look


async def first_of(looks: Iterable[Coroutine[Any, Any, bool]]) -> bool:
    """Return True as soon as one of ``looks`` does; see :func:`any_of`."""
    tasks = {asyncio.ensure_future(one) for one in looks}
    try:
        failed: BaseException | None = None
        for task in asyncio.as_completed(tasks):
            try:
                if await task:
                    return True
            except (MeshError, OSError) as error:
                failed = error
        if failed is not None:
            raise failed
        return False
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Liveness:
    """Asks the other end of a wire for a sign of life. ``namespace`` gives the path that the wires end in."""

    def __init__(self, namespace: Callable[[], str], limit: float = LIMIT) -> None:
        self._namespace = namespace
        self._limit = limit

    async def __call__(self, connection: Connection) -> bool:
        """Return whether the other end answers; where no IP is or passes, whether the wire is up.

        Wires of other mechanisms than KERNEL cannot be looked at: False, nobody can tell.
        """
        interface = connection.mechanism.parameters.get("name", "")
        if connection.mechanism.type != KERNEL or not interface:
            return False
        namespace = self._namespace()
        pair = None if connection.payload == MPLS else _addresses(connection)
        if pair is None:
            return probe.running(namespace, interface)

        async def asked(frames: bool) -> bool:
            return await probe.answers(namespace, interface, *pair, self._limit, frames=frames)

        # a wire of payload IP may carry nothing else, and a function on it may let no echo pass
        kinds = (False, True) if connection.payload == IP else (True,)
        return await first_of([asked(frames=frames) for frames in kinds])


def carrier(namespace: Callable[[], str]) -> Callable[[Connection], bool]:
    """Return what says whether a kernel wire in ``namespace`` has a carrier; of others nobody can tell: True.

    The kernel may say so up to a second late, and never too early. A client that may not enter the namespace
    cannot tell either; its own, which is empty here, it can always ask.
    """

    def carries(connection: Connection) -> bool:
        interface = connection.mechanism.parameters.get("name", "")
        if connection.mechanism.type != KERNEL or not interface:
            return True
        try:
            return probe.carries(namespace(), interface)
        except NotFound:
            return False
        except MeshError:
            return True

    return carries


def _addresses(connection: Connection) -> tuple[str, str] | None:
    """Return our address and the other end's, of one IP version, or None."""
    ip = connection.context.ip_context
    try:
        ours = [ip_interface(text).ip for text in ip.src_ip_addrs]
        theirs = [ip_interface(text).ip for text in ip.dst_ip_addrs]
    except ValueError:
        return None
    pairs = ((str(a), str(b)) for a in ours for b in theirs if a.version == b.version)
    return next(pairs, None)
