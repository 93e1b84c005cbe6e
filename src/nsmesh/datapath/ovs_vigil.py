"""Hears of what others take out of a switch, ports by its database, flows by OpenFlow: it is put back.

What this process takes out is not known any more when it hears of it, and so is nobody else's doing.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath import ovs_openflow as openflow
from nsmesh.datapath.ovs_database import SCHEMA, Row
from nsmesh.datapath.ovs_rows import is_spare, pair_of
from nsmesh.datapath.ovs_switch import Switch

log = structlog.get_logger()

PAUSE = 0.2
"""Seconds until a connection that ended is made again."""
BY_REQUEST = 2
"""Why a flow was removed: somebody asked for it (OFPRR_DELETE)."""
_ANY_LENGTH = struct.Struct("!HH")
_PIECE = 65536
_REMOVED = struct.Struct("!QHB")
_MONITOR = {
    "method": "monitor",
    "params": [
        SCHEMA,
        "nsm",
        {
            "Port": {
                "columns": ["name"],
                "select": {"initial": False, "insert": False, "delete": True, "modify": False},
            }
        },
    ],
    "id": 1,
}


async def watching(switch: Switch, tell: Callable[[str], None]) -> None:
    """Put back for ever what others take out; ``tell`` hears of each wire that is to be made again.

    Flows, which follow from the ports, are put back here.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(_again(lambda: _watch_ports(switch, tell)))
        group.create_task(_again(lambda: _watch_flows(switch)))


async def _again(watch: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await watch()
        except (OSError, ValueError, MeshError) as error:
            log.debug("what is taken out of the switch is not heard of now", error=str(error))
        await asyncio.sleep(PAUSE)


async def _watch_ports(switch: Switch, tell: Callable[[str], None]) -> None:
    async with aclosing(_deletions(switch.database)) as deletions:
        async for names in deletions:
            await _look_at_ports(switch, tell, names)


async def _look_at_ports(switch: Switch, tell: Callable[[str], None], names: Collection[str] | None) -> None:
    gone = await switch.ports.vanished(names)
    if not gone:
        return
    log.warning("somebody took ports out of the switch: they are made again", ports=sorted(gone))
    if pairs := {pair_of(name) for name in gone if is_spare(name)}:
        await switch.spares.discard(pairs)
        switch.spares.look()
    for owner in {port.owner for port in gone.values() if port.owner}:
        tell(owner)


async def _watch_flows(switch: Switch) -> None:
    async with aclosing(_removals(switch.flows)) as removals:
        async for cookies in removals:
            if missing := await switch.ports.flows_of(cookies):
                log.warning("somebody took flows out of the switch: they are put back", of=sorted(missing))
                await switch.ports.lead_pairs()


async def _deletions(database: Path) -> AsyncGenerator[Collection[str] | None, None]:
    """Yield the names of ports that were deleted; first None: before that nothing was heard."""
    reader, writer = await asyncio.open_unix_connection(database)
    try:
        writer.write(json.dumps(_MONITOR).encode())
        text, decoded = "", codecs.getincrementaldecoder("utf-8")()
        while part := await reader.read(_PIECE):
            told, text = _values(text + decoded.decode(part))
            for one in told:
                if one.get("method") == "echo":
                    answer = {"id": one["id"], "result": one["params"], "error": None}
                    writer.write(json.dumps(answer).encode())
                elif one.get("id") == _MONITOR["id"]:
                    yield None
                elif one.get("method") == "update":
                    yield {change["old"]["name"] for change in one["params"][1]["Port"].values()}
    finally:
        writer.close()


def _values(text: str) -> tuple[list[Row], str]:
    """Return the whole JSON values at the front of a text, and the rest."""
    found: list[Row] = []
    decoder = json.JSONDecoder()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError:
            break
        found.append(value)
        text = text[end:].lstrip()
    return found, text


async def _removals(flows: Path) -> AsyncGenerator[Collection[int], None]:
    """Yield the marks of flows that were deleted. A switch that has none at its start gets them elsewhere."""
    reader, writer = await asyncio.open_unix_connection(flows)
    try:
        # a switch tells such a connection of nothing before it knows how much of a packet is wanted
        writer.write(
            openflow.message(openflow.HELLO) + openflow.message(openflow.SET_CONFIG, _ANY_LENGTH.pack(0, 1))
        )
        waiting = bytearray()
        while part := await reader.read(_PIECE):
            waiting += part
            found = set()
            for kind, body, xid in openflow.taken(waiting):
                if kind == openflow.ECHO_REQUEST:
                    writer.write(openflow.message(openflow.ECHO_REPLY, body, xid))
                elif kind == openflow.FLOW_REMOVED:
                    cookie, _, reason = _REMOVED.unpack_from(body)
                    found |= {cookie} if reason == BY_REQUEST else set()
            if found:
                yield found
    finally:
        writer.close()
