"""The database of Open vSwitch: transactions as JSON-RPC (RFC 7047) over its unix socket.

The switch's own library keeps a replica of the whole database and blocks in a loop of its own; a wire needs
three transactions whose answers say all.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from nsmesh.core.errors import MeshError, Refused, Unavailable

SCHEMA = "Open_vSwitch"
_PATIENCE = 10.0
"""Seconds that a transaction may take, with the switch's own work on it."""

Row = dict[str, Any]


def mapping(pairs: dict[str, str]) -> list[Any]:
    """Return a map as the database writes it."""
    return ["map", [[key, value] for key, value in pairs.items()]]


def unmapped(value: Any) -> dict[str, str]:
    """Return a map that the database wrote."""
    return dict(value[1])


def members(value: Any) -> list[Any]:
    """Return what a set holds; the database writes a set of one as that one."""
    return list(value[1]) if isinstance(value, list) and value and value[0] == "set" else [value]


async def transact(socket: Path, *operations: Row) -> list[Row]:
    """Do operations, all or none; return the result of each.

    Raises Unavailable where the database does not answer, Refused with the words of the database.
    """
    results: list[Row] = await call(socket, "transact", SCHEMA, *operations)
    _demand([result for result in results if result and result.get("error")])
    return results


async def call(socket: Path, method: str, *params: Any) -> Any:
    """Call a method; return its result. Raises as :func:`transact`."""
    request = {"method": method, "params": params, "id": 1}
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(json.dumps(request).encode())
                answer = await _answer(reader)
            finally:
                writer.close()
    except MeshError:
        raise
    except (OSError, TimeoutError) as error:
        raise Unavailable(
            f"the database of the switch does not answer at {socket}: {error or 'nothing came in time'}",
            remedy="see the log of ovsdb-server in its run directory",
        ) from error
    _demand([answer["error"]] if answer.get("error") else [])
    return answer.get("result") or []


def _demand(failed: list[Row]) -> None:
    if failed:
        raise Refused(
            f"the database of the switch refused: {failed[0]['error']} {failed[0].get('details') or ''}",
            remedy="see the logs of ovsdb-server and ovs-vswitchd in the run directory",
        )


async def _answer(reader: asyncio.StreamReader) -> Row:
    """Return the answer: one JSON value, which nothing but its own end delimits."""
    text = b""
    while part := await reader.read(65536):
        text += part
        try:
            found: Row = json.loads(text)
        except ValueError:
            continue
        return found
    raise ConnectionError("it closed the connection")
