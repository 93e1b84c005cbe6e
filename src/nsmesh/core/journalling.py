"""What a component keeps of its connections beyond its own end, and how it takes it up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
from google.protobuf.message import DecodeError

from nsmesh.core.call import Peer
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.living import Living
from nsmesh.model.messages import Connection, NetworkServiceRequest

if TYPE_CHECKING:  # they are two halves of one machine
    from nsmesh.core.begin import Begin

log = structlog.get_logger()

GRACE = 10.0
"""Seconds that a connection has after a restart, however little was left of it: its client looks for us."""


@dataclass(frozen=True, slots=True)
class Record:
    """One connection in one chain, in wire form; ``state`` has what its elements keep, by name of the key."""

    connection: bytes
    request: bytes
    peer: str
    state: Mapping[str, bytes]


class Journal(Protocol):
    """Keeps records by chain and connection id. Writing never fails a caller: it is told and tried again.

    ``whole``: whether it had all that was ever agreed when it was opened, so that what it does not have is
    nobody's. One that is begun anew is not, until somebody vouches for it.
    """

    @property
    def whole(self) -> bool:
        """See the class."""
        ...

    def vouch(self) -> None:
        """Say that nothing is agreed that it does not have: it is whole from now on, if nothing is lost."""
        ...

    def put(self, chain: str, connection_id: str, record: Record) -> None:
        """Keep a record in place of an older one; it is written soon."""
        ...

    def drop(self, chain: str, connection_id: str) -> None:
        """Forget a record; one that is not there is forgotten already."""
        ...

    def records(self, chain: str) -> dict[str, Record]:
        """Return what is kept of a chain, by connection id."""
        ...

    def chains(self) -> list[str]:
        """Return the names of the chains of which something is kept."""
        ...

    async def written(self) -> None:
        """Return when all that was put and dropped so far outlives this process."""
        ...


def record_of(life: Living) -> Record | None:
    """Return what is kept of a life; None while it has no connection."""
    connection, request = life.packed
    if connection is None or request is None:
        return None
    peer = life.peer
    who = [peer.spiffe_id, peer.uid, peer.gid, peer.in_process]
    return Record(connection, request, json.dumps(who, separators=(",", ":")), life.state.packed())


async def resume(begin: Begin, journal: Journal, next: Handler, *, half_of: str = "") -> int:
    """Take up the connections that an earlier process of ours had; return how many.

    Each element of the chain takes up its own share. A record that cannot be read is left out, said, and
    forgotten. ``half_of``: name of the chain of the server's half, without whose record there is nothing to
    take up: a Request or Close was cut off between the two. The elements are told to abandon it.
    """
    chain = begin.scope.name
    wholes = journal.records(half_of) if half_of else None
    found = 0
    for connection_id, record in journal.records(chain).items():
        try:
            life = _living(begin, connection_id, record, next)
        except (DecodeError, ValueError, TypeError, KeyError) as error:
            log.warning(
                "what was kept of a connection cannot be read", connection=connection_id, error=str(error)
            )
            journal.drop(chain, connection_id)
            continue
        if wholes is not None and connection_id not in wholes:
            await _abandon(begin, life)
            journal.drop(chain, connection_id)
            continue
        begin.take_up(life)
        await _tell(begin, life)
        found += 1
    if found:
        log.info("connections taken up", chain=chain, connections=found)
    return found


def _living(begin: Begin, connection_id: str, record: Record, next: Handler) -> Living:
    life = Living(begin, connection_id, next)
    life.connection = Connection.FromString(record.connection)
    life.request = NetworkServiceRequest.FromString(record.request)
    spiffe_id, uid, gid, in_process = json.loads(record.peer)
    life.peer = Peer(spiffe_id=spiffe_id, uid=uid, gid=gid, in_process=in_process)
    life.state.unpack(record.state)
    return life


async def _abandon(begin: Begin, life: Living) -> None:
    call = life.call().on(life.state)
    for element in begin.companions:
        connection = life.connection
        assert connection is not None
        await element.abandon(call, connection)
    life.over()


async def _tell(begin: Begin, life: Living) -> None:
    for element in begin.companions:
        connection = life.connection
        if connection is None:
            return
        try:
            await element.resume(life.call().on(life.state), connection)
        except MeshError as error:
            log.warning(
                "a part of a connection is not taken up: the next Request makes it anew",
                element=type(element).__name__,
                connection=life.id,
                error=str(error),
            )
