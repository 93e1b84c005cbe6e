"""Events at pods: a wire is up, moved, down, refused or closed."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from urllib.parse import quote

import structlog

from nsmesh.core.clock import Clock
from nsmesh.core.errors import MeshError, NotFound, TimedOut, Unavailable
from nsmesh.core.outcome import Outcome
from nsmesh.core.pauses import pauses
from nsmesh.kubernetes.client import MERGE, Api, Object, collection
from nsmesh.kubernetes.events import NORMAL, WARNING, About, Recorder
from nsmesh.kubernetes.pod_status import STATUS, PodWire
from nsmesh.kubernetes.reflector import FIRST_PAUSE, LONGEST_PAUSE
from nsmesh.kubernetes.wires import Place, pod_of_id, reason_of

log = structlog.get_logger()

WAITING = 1000
"""Events that wait for the API server; the oldest are lost first."""
UP, DOWN, REFUSED, CLOSED = "WireUp", "WireDown", "WireRefused", "WireClosed"
_Key = tuple[Place, str, str]


class PodEvents:
    """Says what is news, and writes it. ``pods``: the node's pods, as they are known."""

    def __init__(self, api: Api, node: str, clock: Clock, pods: Mapping[Place, Object]) -> None:
        self._api = api
        self._pods = pods
        self._recorder = Recorder("nsmesh-nsmgr", node, clock)
        self._up: dict[_Key, PodWire] = {}
        self._waiting: deque[tuple[Place, str, str, str]] = deque(maxlen=WAITING)
        self._wake = asyncio.Event()

    def take(self, outcome: Outcome) -> None:
        """Take what became of a Request: of the first one, and where something is different now."""
        if outcome.error is not None:
            place = pod_of_id(outcome.peer.spiffe_id)
            asked = PodWire.of(outcome.connection, place)
            if asked is not None and place[1]:
                what = f"wire {asked.interface} to {asked.service}".replace("  ", " ")
                self._put(place, WARNING, REFUSED, f"{what}: {outcome.error}")
            return
        wire = PodWire.of(outcome.connection)
        if wire is None:
            return
        key = _key(wire)
        before = self._up.get(key)
        self._up[key] = wire
        took = f"in {outcome.seconds * 1000:.0f} ms: {', '.join(wire.addresses) or 'without an address'}"
        if before is None:
            if not self._is_told(wire):
                self._put(wire.pod, NORMAL, UP, f"{wire} up {took}")
        elif not before.is_up:
            self._put(wire.pod, NORMAL, UP, f"{wire} up again {took}")
        elif (before.endpoint, before.addresses) != (wire.endpoint, wire.addresses):
            self._put(wire.pod, NORMAL, UP, f"{wire} up, in place of {before.endpoint}, {took}")

    def changed(self, before: PodWire | None, wire: PodWire | None, state: int) -> None:
        """Take what the monitor says that a wire was, and is."""
        if before is not None and wire is None:
            self._up.pop(_key(before), None)
            self._put(before.pod, NORMAL, CLOSED, f"{before} closed")
        elif before is not None and wire is not None and before.is_up and not wire.is_up:
            self._up[_key(wire)] = wire
            self._put(wire.pod, WARNING, DOWN, f"{wire} is down: {reason_of(state)}")

    def problem(self, place: Place, text: str) -> None:
        """Say why nobody asks for what a pod wishes for."""
        self._put(place, WARNING, REFUSED, text)

    def forget(self, place: Place) -> None:
        """Forget what is known of a pod that is gone."""
        for key in [key for key in self._up if key[0] == place]:
            del self._up[key]

    def _is_told(self, wire: PodWire) -> bool:
        """Whether the pod's annotation names the wire already: an earlier manager of this node said so."""
        pod = self._pods.get(wire.pod)
        text = pod["metadata"]["annotations"].get(STATUS, "") if pod else ""
        try:
            return wire.status() in json.loads(text or "[]")
        except (ValueError, TypeError):
            return False

    def _put(self, place: Place, kind: str, reason: str, message: str) -> None:
        self._waiting.append((place, kind, reason, message))
        self._wake.set()

    async def write(self, known: asyncio.Event) -> None:
        """Write events until cancelled, once ``known`` says that pods are known.

        While the API server is away they wait, ever longer; what is refused is lost.
        """
        await known.wait()
        delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            await self._wake.wait()
            if not self._waiting:
                self._wake.clear()
                continue
            place, kind, reason, message = self._waiting.popleft()
            try:
                await self._tell(place, kind, reason, message)
                delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
            except (Unavailable, TimedOut) as error:
                log.debug("event waits for the API server", pod="/".join(place), error=str(error))
                if len(self._waiting) < WAITING:
                    self._waiting.appendleft((place, kind, reason, message))
                await asyncio.sleep(next(delays))
            except MeshError as error:
                log.debug("event not written", pod="/".join(place), reason=reason, error=str(error))

    async def _tell(self, place: Place, kind: str, reason: str, message: str) -> None:
        about = await self._about(place)
        made = self._recorder.record(about, kind, reason, message) if about else None
        if made is None or about is None:
            return
        try:
            await self._write(place[0], *made)
        except MeshError as error:
            gone = isinstance(error, NotFound)
            self._recorder.failed(about, kind, reason, message, gone=gone)
            raise

    async def _write(self, namespace: str, verb: str, body: Object) -> None:
        path = collection("v1", "events", namespace)
        if verb == "POST":
            await self._api.call("POST", path, body=body)
            return
        name = quote(body["metadata"]["name"], safe="")
        await self._api.call("PATCH", f"{path}/{name}", body=body, content_type=MERGE)

    async def _about(self, place: Place) -> About | None:
        pod = self._pods.get(place)
        namespace, name = place
        if pod is None:  # it may be younger than what the watch has told
            try:
                path = f"{collection('v1', 'pods', namespace)}/{quote(name, safe='')}"
                pod = await self._api.call("GET", path)
            except NotFound:
                return None
        return About("Pod", namespace, name, pod["metadata"]["uid"])


def _key(wire: PodWire) -> _Key:
    return wire.pod, wire.service, wire.interface
