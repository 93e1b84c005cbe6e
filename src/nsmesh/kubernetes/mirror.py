"""The mirror of a node's wires: one ``NetworkServiceConnection`` for each, kept as the manager tells.

What shall be (the manager's monitor) and what is (a watch of our own objects) are compared object by object,
and only what differs is written. So an outage, an edit by hand, an object that went with its pod and what an
earlier manager left are one and the same case.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Self
from urllib.parse import quote

import structlog

from nsmesh.core.errors import MeshError, NotFound, Unauthorized
from nsmesh.core.outcome import Outcome
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import APPLY, Api, Object, collection
from nsmesh.kubernetes.codec import API_VERSION
from nsmesh.kubernetes.due import Due
from nsmesh.kubernetes.reflector import Reflector
from nsmesh.kubernetes.refusals import Refusals
from nsmesh.kubernetes.wires import (
    DOWN,
    NODE_LABEL,
    PLURAL,
    REFUSED,
    Place,
    Wire,
    label_of,
    refused_wire,
    wire_of,
)
from nsmesh.model.messages import Connection, ConnectionEvent, ConnectionEventType

log = structlog.get_logger()

MANAGER = "nsmesh-nsmgr"
"""Field manager of what is applied."""
GRACE = 15.0
"""Seconds at the start for which objects that nobody told of yet are left: their clients may ask again."""
LOOK = 5.0
"""Seconds between two looks at refusals that are old."""
REFUSAL = "refused"
AGAIN = 30.0
"""Seconds until an object that the server refused is tried again, unless it changes."""


class ConnectionMirror:
    """Writes a node's wires. Feed it with :meth:`take`; it writes inside :meth:`running`.

    ``node`` says whose objects are ours; ``own_pod`` is the manager's pod, see :func:`wire_of`. Clients
    whose identity names no namespace are written to that of ``api``.
    """

    def __init__(
        self, api: Api, node: str, *, own_pod: str = "", grace: float = GRACE, again: float = AGAIN
    ) -> None:
        self._api = api
        self._node = label_of(node)
        self._own_pod = own_pod
        self._grace = grace
        self._again = again
        self._places: dict[str, Place] = {}
        self._wanted: dict[Place, Wire] = {}
        self._tellers: dict[Place, str] = {}
        self._there: dict[Place, Object] = {}
        self._applied: set[Place] = set()
        self._orphaned: set[Place] = set()
        self._due = Due()
        self._scope = Scope("mirror")
        self._refusals = Refusals()
        self._sweeps = 0.0
        self.writes = 0
        """How many calls changed something."""
        self.reflector = Reflector(
            api, collection(API_VERSION, PLURAL), self, {"labelSelector": f"{NODE_LABEL}={self._node}"}
        )

    @asynccontextmanager
    async def running(self, scope: Scope) -> AsyncIterator[Self]:
        """Keep the objects true while the block runs. They stay when it ends, as the wires do."""
        self._scope = scope
        self._sweeps = scope.clock.monotonic() + self._grace
        tasks = [
            scope.spawn(self.reflector.run(), name="watch mirrored connections"),
            scope.spawn(self._write(), name="mirror connections"),
            scope.spawn(self._forget_refusals(), name="forget refusals"),
        ]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()

    def take(self, event: ConnectionEvent) -> None:
        """Take what the manager's monitor says, with the tokens that it shows to its own process."""
        for connection_id, connection in event.connections.items():
            if event.type == ConnectionEventType.DELETE:
                self._put(connection_id, None)
            else:
                self._put(connection_id, self._wire(connection))

    def take_outcome(self, outcome: Outcome) -> None:
        """Show a Request that failed, where no wire of its client is there that is up."""
        if outcome.error is None:
            return  # the manager's monitor tells of it
        wire = refused_wire(outcome, namespace=self._api.namespace, own_pod=self._own_pod)
        if wire is None or not self._refusals.take(
            wire, outcome.peer.spiffe_id, self._scope.clock.monotonic()
        ):
            return
        shown = self._wanted.get(wire.place)
        if shown is None or shown.status["state"] == REFUSED:
            self._put(_refusal(wire.place), wire)
        elif shown.status["state"] == DOWN:  # why it does not come back
            status = {**shown.status, "reason": wire.status["reason"]}
            self._wanted[wire.place] = replace(shown, status=status)
            self._look(wire.place)

    async def _forget_refusals(self) -> None:
        """Take away, in time, what nobody asks for any more."""
        while True:
            await asyncio.sleep(LOOK)
            for place in self._refusals.over(self._scope.clock.monotonic()):
                self._put(_refusal(place), None)

    def _wire(self, connection: Connection) -> Wire | None:
        return wire_of(connection, namespace=self._api.namespace, own_pod=self._own_pod)

    def _put(self, connection_id: str, wire: Wire | None) -> None:
        before = self._places.pop(connection_id, None)
        if wire is not None:
            self._places[connection_id] = wire.place
            self._wanted[wire.place] = wire
            self._tellers[wire.place] = connection_id
            self._look(wire.place)
        if before is None or (wire is not None and wire.place == before):
            return
        if self._tellers.get(before) == connection_id:
            del self._tellers[before], self._wanted[before]
            self._orphaned.discard(before)
            self._look(before)

    # What is, as the watch says it.

    def changed(self, item: Object) -> None:
        """Take an object that was made or changed."""
        place = _place(item)
        known = self._there.get(place)
        if known is None or _version(known) <= _version(item):
            self._there[place] = item
            self._look(place)

    def deleted(self, item: Object) -> None:
        """Take an object's last form; it is gone."""
        place, metadata = _place(item), item["metadata"]
        known = self._there.get(place)
        if known is not None and known["metadata"]["uid"] != metadata["uid"]:
            return  # ours already has another in its place
        self._there.pop(place, None)
        if metadata.get("ownerReferences") and place in self._wanted:
            self._orphaned.add(place)
        self._look(place)

    def replace(self, items: list[Object], version: str) -> None:  # noqa: ARG002 - a Sink's face
        """Take all our objects."""
        self._there = {_place(item): item for item in items}
        for place in {*self._there, *self._wanted}:
            self._look(place)

    # Making the one like the other.

    def _look(self, place: Place) -> None:
        if not self._is_level(place):
            self._due.put(place)

    def _is_level(self, place: Place) -> bool:
        wanted, there = self._wanted.get(place), self._there.get(place)
        if wanted is None or there is None:
            return wanted is None and there is None
        return bool(there.get("spec") == wanted.spec and there.get("status", {}) == wanted.status)

    async def _write(self) -> None:
        await self.reflector.synced.wait()
        await self._due.each(self._settle, self._failed)

    def _failed(self, place: Place, error: MeshError) -> None:
        namespace, name = place
        log.warning("wire not shown", namespace=namespace, name=name, error=str(error))
        self._scope.after(self._again, partial(self._look, place))

    async def _settle(self, place: Place) -> None:
        """Make one object as it shall be."""
        if self._is_level(place):
            return
        wanted, there = self._wanted.get(place), self._there.get(place)
        if there is not None and (wanted is None or there.get("spec") != wanted.spec):
            if wanted is None and self._may_come_back(place):
                return
            await self._delete(place, there)
        if wanted is not None:
            await self._apply(wanted)

    def _may_come_back(self, place: Place) -> bool:
        """Whether an earlier manager left it and its client may ask yet; it is looked at again then."""
        rest = self._sweeps - self._scope.clock.monotonic()
        if rest <= 0 or place in self._applied:
            return False
        self._scope.after(rest, partial(self._look, place))
        return True

    async def _delete(self, place: Place, there: Object) -> None:
        uid = there["metadata"]["uid"]
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            await self._api.call("DELETE", _path(place), body=body)
            self.writes += 1
        except NotFound:
            log.debug("wire is shown no more already", name=place[1])
        self._there.pop(place, None)
        self._applied.discard(place)

    async def _apply(self, wire: Wire) -> None:
        place, params = wire.place, {"fieldManager": MANAGER, "force": "true"}
        if place not in self._there:
            uid = await self._uid(wire)
            went = place in self._orphaned
            self._orphaned.discard(place)
            if went and not uid:
                return  # with its pod; a client that lives asks again, and is looked at again then
            body = wire.applied(self._node, uid)
            self.changed(await self._call(_path(place), body, params))
        self._applied.add(place)
        self.changed(await self._call(f"{_path(place)}/status", wire.applied_status(), params))

    async def _call(self, path: str, body: Object, params: dict[str, str]) -> Object:
        found = await self._api.call("PATCH", path, body=body, params=params, content_type=APPLY)
        self.writes += 1
        return found

    async def _uid(self, wire: Wire) -> str:
        """Return the uid of the client's pod; empty where there is none, or we may not ask."""
        try:
            pods = collection("v1", "pods", wire.place[0])
            pod = await self._api.call("GET", f"{pods}/{quote(wire.client, safe='')}")
        except (NotFound, Unauthorized) as error:
            log.debug("the pod of a wire is not known", client=wire.client, error=str(error))
            return ""
        uid: str = pod["metadata"]["uid"]
        return uid


def _refusal(place: Place) -> str:
    """Return the id under which a refusal is told, which is no connection's."""
    return "/".join((REFUSAL, *place))


def _place(item: Object) -> Place:
    metadata = item["metadata"]
    return metadata["namespace"], metadata["name"]


def _version(item: Object) -> int:
    return int(item["metadata"]["resourceVersion"])


def _path(place: Place) -> str:
    namespace, name = place
    return f"{collection(API_VERSION, PLURAL, namespace)}/{name}"
