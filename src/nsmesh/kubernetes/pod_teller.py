"""Tells the pods of a node of their wires: an annotation, a condition for readiness gates, and events.

A manager runs it: it knows the wires of all clients of its node, whoever asks for them. What shall stand at a
pod is worked out from the manager's monitor, what does stand there is watched, and only what differs is
written; so an outage and an edit by hand are one case.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote

import structlog

from nsmesh.core.errors import Invalid, MeshError, NotFound
from nsmesh.core.outcome import Outcome
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import Api, Changed, Object, collection
from nsmesh.kubernetes.due import Due
from nsmesh.kubernetes.pod_events import PodEvents
from nsmesh.kubernetes.pod_status import GATE, STATUS, PodWire, condition_of, has_gate, status_of
from nsmesh.kubernetes.reflector import Reflector
from nsmesh.kubernetes.wires import Place
from nsmesh.kubernetes.wishes import ANNOTATION, Wish, client_of, is_in_node_network, wish_of
from nsmesh.model.messages import ConnectionEvent, ConnectionEventType

log = structlog.get_logger()

STRATEGIC = "application/strategic-merge-patch+json"
"""Conditions are merged by their type."""
NO_WISH = Wish("", by_agent=False)


class PodTeller:
    """Feed it with :meth:`take` and :meth:`take_outcome`; it writes inside :meth:`running`."""

    def __init__(self, api: Api, node: str, scope: Scope) -> None:
        self._api = api
        self._scope = scope
        self._pods: dict[Place, Object] = {}
        self._wires: dict[str, PodWire] = {}
        self._of_pod: dict[Place, dict[str, PodWire]] = {}
        self._due = Due()
        self._problems: dict[Place, str] = {}
        self.writes = 0
        """How many patches of pods were made."""
        self.events = PodEvents(api, node, scope.clock, self._pods)
        chosen = {"fieldSelector": f"spec.nodeName={node}"}
        self.reflector = Reflector(api, collection("v1", "pods"), self, chosen)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Keep pods told while the block runs. What was said stays when it ends, as the wires do."""
        tasks = [
            self._scope.spawn(self.reflector.run(), name="watch pods of this node"),
            self._scope.spawn(self._write(), name="tell pods of their wires"),
            self._scope.spawn(self.events.write(self.reflector.synced), name="events of wires"),
        ]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()

    # What shall be said

    def take(self, event: ConnectionEvent) -> None:
        """Take what the manager's monitor says, with the tokens that it shows to its own process."""
        for connection_id, connection in event.connections.items():
            gone = event.type == ConnectionEventType.DELETE
            wire = None if gone else PodWire.of(connection)
            before = self._wires.pop(connection_id, None)
            if before is not None:
                del self._of_pod[before.pod][connection_id]
                if not self._of_pod[before.pod]:
                    del self._of_pod[before.pod]
                self._due.put(before.pod)
            if wire is not None:
                self._wires[connection_id] = wire
                self._of_pod.setdefault(wire.pod, {})[connection_id] = wire
                self._due.put(wire.pod)
            self.events.changed(before, wire, connection.state)

    def take_outcome(self, outcome: Outcome) -> None:
        """Take what became of a Request."""
        self.events.take(outcome)

    # What is, as the watch says it

    def changed(self, item: Object) -> None:
        """See :class:`Sink`."""
        place = _place(item)
        self._pods[place] = _bare(item)
        self._warn(place)
        self._due.put(place)

    def deleted(self, item: Object) -> None:
        """See :class:`Sink`."""
        place = _place(item)
        known = self._pods.get(place)
        if known is not None and known["metadata"]["uid"] == item["metadata"]["uid"]:
            del self._pods[place]
            self._problems.pop(place, None)
            self.events.forget(place)

    def replace(self, items: list[Object], version: str) -> None:  # noqa: ARG002 - a Sink's face
        """See :class:`Sink`."""
        self._pods.clear()
        self._pods.update((_place(item), _bare(item)) for item in items)
        for place in self._pods:
            self._warn(place)
            self._due.put(place)

    def _warn(self, place: Place) -> None:
        """Say once at a pod that what it asks for cannot be: nobody makes a Request of it."""
        problem = ""
        try:
            wish = wish_of(self._pods[place], {})
            if wish is not None and wish.text:
                wish.wires()
                if wish.by_agent and is_in_node_network(self._pods[place]):
                    problem = "the pod is in the network of its node: nobody makes wires there"
        except Invalid as error:
            problem = str(error)
        if problem and self._problems.get(place) != problem:
            self.events.problem(place, problem)
        self._problems[place] = problem

    # Making the one like the other

    async def _write(self) -> None:
        await self.reflector.synced.wait()
        await self._due.each(self._settle, _not_told)

    async def _settle(self, place: Place) -> None:
        """Say at one pod what is to be said, where it is not said yet."""
        pod = self._pods.get(place)
        if pod is None:
            return
        wires = list(self._of_pod.get(place, {}).values())
        patch: Object = {}
        text = status_of(wires)
        if pod["metadata"]["annotations"].get(STATUS, "") != text:
            patch["annotations"] = {STATUS: text or None}
        body: Object = {"metadata": {"uid": pod["metadata"]["uid"], **patch}}
        if has_gate(pod):
            condition = await self._condition(pod, wires)
            if condition is not None:
                body["status"] = {"conditions": [condition]}
        if not patch and "status" not in body:
            return
        path = f"{collection('v1', 'pods', place[0])}/{quote(place[1], safe='')}/status"
        params = {"fieldManager": "nsmesh-nsmgr"}
        self.writes += 1
        self.changed(await self._api.call("PATCH", path, body=body, params=params, content_type=STRATEGIC))

    async def _condition(self, pod: Object, wires: list[PodWire]) -> Object | None:
        """Return the condition to write; None where it stands there already."""
        wish, problem = NO_WISH, ""
        try:
            wish = wish_of(pod, await self._namespace(pod)) or NO_WISH
            wished = wish.wires() if wish.text else []
        except MeshError as error:
            wished, problem = [], str(error)
        if not wished and not problem:
            problem = (
                f"the pod waits for wires, and what it asks for does not stand in it: annotate {ANNOTATION}"
            )
        condition: Object = dict(condition_of(wished, wires, problem))
        known = _known_condition(pod)
        if all(known.get(key) == value for key, value in condition.items()):
            return None
        is_same = known.get("status") == condition["status"]
        now = datetime.fromtimestamp(self._scope.clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition["lastTransitionTime"] = known.get("lastTransitionTime", now) if is_same else now
        return condition

    async def _namespace(self, pod: Object) -> Object:
        """Return the namespace of a pod whose wish may stand there, else nothing."""
        if ANNOTATION in pod["metadata"]["annotations"] or client_of(pod) is not None:
            return {}
        return await self._api.call("GET", f"/api/v1/namespaces/{pod['metadata']['namespace']}")


def _not_told(place: Place, error: MeshError) -> None:
    if isinstance(error, NotFound | Changed):  # another pod of that name, or none: the watch tells
        log.debug("pod not told", pod="/".join(place), error=str(error))
    else:
        log.warning("pod not told of its wires", pod="/".join(place), error=str(error))


def _place(item: Object) -> Place:
    metadata = item["metadata"]
    return metadata["namespace"], metadata["name"]


def _bare(item: Object) -> Object:
    """Keep what is asked for: a node may have hundreds of pods."""
    meta, spec, status = item["metadata"], item.get("spec", {}), item.get("status", {})
    kept = {key: meta[key] for key in ("name", "namespace", "uid")}
    told = [one for one in status.get("conditions") or () if one.get("type") == GATE]
    return {
        "metadata": {**kept, "annotations": dict(_ours(meta.get("annotations") or {}))},
        "spec": {
            "readinessGates": spec.get("readinessGates") or [],
            "hostNetwork": bool(spec.get("hostNetwork")),
            "initContainers": [{"env": one.get("env") or []} for one in spec.get("initContainers") or ()],
            "containers": [{"env": one.get("env") or []} for one in spec.get("containers") or ()],
        },
        "status": {"phase": status.get("phase", ""), "conditions": told},
    }


def _ours(annotations: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in annotations.items() if name.startswith(ANNOTATION))


def _known_condition(pod: Object) -> Object:
    return next(iter(pod["status"]["conditions"]), {})
