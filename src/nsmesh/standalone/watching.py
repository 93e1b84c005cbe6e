"""``nsm get`` and its watches: rows, then each change of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from nsmesh.api import control_pb2
from nsmesh.core.errors import Invalid
from nsmesh.model import control
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.refused import add_refused
from nsmesh.standalone.rows import Rows
from nsmesh.standalone.rows_connection import Row
from nsmesh.standalone.statuses import add_statuses

GATHER = 0.02
"""Seconds to wait for more news before looking."""
_CHANGING = frozenset({"age", "expires", "seen"})
"""Fields that change by themselves: no news."""


async def listing(mesh: Mesh, rows: Rows, request: control_pb2.GetRequest) -> AsyncIterator[bytes]:
    """Yield items of the wanted kind; with ``watch`` then changes, until cancelled. Raises Invalid."""
    if request.what not in control.KINDS:
        raise Invalid(f"unknown kind {request.what!r}", remedy=f"known: {', '.join(control.KINDS)}")
    with mesh.news.listen() as changed:
        last = mesh.events.last
        shown = rows.of(request.what, request.name)
        if request.what == "endpoints" and not request.watch:
            await add_statuses(mesh, shown)
        if request.what == "connections" and not request.watch:
            await add_refused(mesh, shown)
        for row in shown:
            yield item(row)
        if not request.watch:
            return
        yield control_pb2.Item(synced=True).SerializeToString()
        changes: _News | _Shown
        if request.what == "events":
            changes = _News(mesh, request.name, last)
        else:
            changes = _Shown(rows, request, shown)
        while True:
            await changed.wait()
            await asyncio.sleep(GATHER)
            changed.clear()
            for change in changes.now():
                yield change


class _Shown:
    """What a watcher has been told, by name."""

    def __init__(self, rows: Rows, request: control_pb2.GetRequest, shown: list[Row]) -> None:
        self._rows = rows
        self._request = request
        self._shown = {_name(row): row for row in shown}

    def now(self) -> list[bytes]:
        """Return what is different from what was told."""
        now = {_name(row): row for row in self._rows.of(self._request.what, self._request.name)}
        out = [item(row) for name, row in now.items() if _lasting(self._shown.get(name)) != _lasting(row)]
        out += [item(row, deleted=True) for name, row in self._shown.items() if name not in now]
        self._shown = now
        return out


class _News:
    """The events after the last one that a watcher has been told, of one connection or all."""

    def __init__(self, mesh: Mesh, connection: str, last: int) -> None:
        self._mesh = mesh
        self._connection = connection
        self._last = last

    def now(self) -> list[bytes]:
        """Return them."""
        found = list(self._mesh.events.after(self._last))
        if found:
            self._last = found[-1].number
        return [item(event.row()) for event in found if self._connection in {"", event.connection}]


def _lasting(value: Any) -> Any:
    """Return a row without what changes by itself."""
    if isinstance(value, dict):
        return {key: _lasting(inner) for key, inner in value.items() if key not in _CHANGING}
    if isinstance(value, list):
        return [_lasting(inner) for inner in value]
    return value


def _name(row: Row) -> str:
    return str(row.get("id") or row["name"])


def item(row: Row, *, deleted: bool = False) -> bytes:
    """Return a row as it is sent."""
    return control_pb2.Item(json=json.dumps(row), deleted=deleted).SerializeToString()
