"""Recorded conversations (tests/data/traces): read into calls, with the messages of our own classes."""

from __future__ import annotations

import base64
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from nsmesh.api import health_pb2, workload_pb2
from nsmesh.model import messages, methods
from nsmesh.model.times import from_rfc3339

TRACES = Path(__file__).parents[1] / "data" / "traces"
NAMES = sorted(path.stem for path in TRACES.glob("*.jsonl"))

CLASSES: dict[str, type[Message]] = {
    cls.DESCRIPTOR.full_name: cls
    for cls in (
        messages.Connection,
        messages.ConnectionEvent,
        messages.MonitorScopeSelector,
        messages.NetworkServiceRequest,
        messages.NetworkService,
        messages.NetworkServiceQuery,
        messages.NetworkServiceResponse,
        messages.NetworkServiceEndpoint,
        messages.NetworkServiceEndpointQuery,
        messages.NetworkServiceEndpointResponse,
        health_pb2.HealthCheckRequest,
        health_pb2.HealthCheckResponse,
        workload_pb2.X509SVIDRequest,
        workload_pb2.X509SVIDResponse,
        Empty,
    )
}

FINDS = (methods.SERVICE_FIND, methods.ENDPOINT_FIND)
STREAMS = (*FINDS, methods.MONITOR, methods.HEALTH_WATCH)


@dataclass(frozen=True)
class Said:
    """One message: when, its bytes, and ours of it (None where it is no such message).

    What held a private key was recorded without its bytes.
    """

    t: float
    type: str | None
    raw: bytes
    body: Any

    @functools.cached_property
    def message(self) -> Message | None:
        """Return the bytes as a message of our class."""
        cls = CLASSES.get(self.type or "")
        try:
            return cls.FromString(self.raw) if cls else None
        except DecodeError:
            return None


@dataclass
class RecordedCall:
    """One call of one role at another, as it was recorded."""

    number: int
    t: float
    conn: int
    client: str
    server: str
    method: str
    metadata: list[tuple[str, str]]
    requests: list[Said] = field(default_factory=list)
    answers: list[Said] = field(default_factory=list)
    head: list[tuple[str, str]] = field(default_factory=list)
    ended: float | None = None
    status: int | None = None
    status_message: str = ""
    reset_by: str = ""

    def header(self, name: str) -> list[str]:
        """Return the values of a request header."""
        return [value for key, value in self.metadata if key == name]

    def answer_header(self, name: str) -> list[str]:
        """Return the values of a header of the answer."""
        return [value for key, value in self.head if key == name]

    @property
    def request(self) -> Message | None:
        """The first message of the client."""
        return self.requests[0].message if self.requests else None

    @property
    def verb(self) -> str:
        """The method's last word."""
        return self.method.rpartition("/")[2]


@dataclass(frozen=True)
class Action:
    """Something that was done to the mesh."""

    t: float
    what: str
    role: str
    text: str
    signal: str = ""

    @property
    def ends(self) -> bool:
        """Whether the role is gone from now on."""
        return self.what == "ended" or self.signal == "SIGKILL"


@dataclass
class Trace:
    """One conversation. ``events`` as recorded, ``calls`` in order of their beginning."""

    name: str
    header: dict[str, Any]
    events: list[dict[str, Any]]
    calls: list[RecordedCall]
    actions: list[Action]

    @property
    def recorded_at(self) -> float:
        """Wall time of t = 0, seconds since the epoch."""
        return from_rfc3339(self.header["recorded_at"])

    @property
    def tokens(self) -> dict[str, dict[str, Any]]:
        """Tokens by name."""
        tokens: dict[str, dict[str, Any]] = self.header["tokens"]
        return tokens

    @property
    def inodes(self) -> dict[str, str]:
        """Names of descriptors by URL."""
        inodes: dict[str, str] = self.header.get("inodes", {})
        return inodes

    def sent(self, call: RecordedCall, url: str) -> bool:
        """Whether the client of a call had sent a descriptor on its connection when it called."""
        return any(
            event["ev"] == "fd" and event["conn"] == call.conn and event["dir"] == ">" and event["url"] == url
            for event in self.events
            if event["t"] <= call.t + 0.05
        )

    @property
    def bent(self) -> bool:
        """Whether paths in it are wrong on purpose."""
        return self.name in {"errors-paths", "errors-tokens"}

    def spiffe_id(self, role: str) -> str:
        """Return the identity of a role."""
        found: str = self.header["identities"][role]["spiffe_id"]
        return found

    def roles(self) -> list[str]:
        """Return the roles that were Go programs."""
        return [role for role, one in self.header["components"].items() if one["kind"] == "go"]

    def environment(self, role: str) -> dict[str, str]:
        """Return the variables that a role ran with."""
        found: dict[str, str] = self.header["components"].get(role, {}).get("environment", {})
        return dict(found)


@functools.cache
def load(name: str) -> Trace:
    """Read one conversation."""
    header, *events = map(json.loads, (TRACES / f"{name}.jsonl").read_text().splitlines())
    calls: dict[int, RecordedCall] = {}
    actions = []
    for event in events:
        kind, t = event["ev"], event["t"]
        if kind == "action":
            actions.append(
                Action(
                    t, event["what"], event.get("role", ""), event.get("text", ""), event.get("signal", "")
                )
            )
        elif kind == "request":
            calls[event["call"]] = RecordedCall(
                event["call"],
                t,
                event["conn"],
                event["from"],
                event["to"],
                event["method"],
                [(key, value) for key, value in event["metadata"]],
            )
        elif "call" in event:
            _add(calls[event["call"]], event)
        elif kind == "disconnect":
            for call in calls.values():
                if call.conn == event["conn"] and call.ended is None:
                    call.ended, call.reset_by = t, event["dir"]
    return Trace(name, header, events, list(calls.values()), actions)


def _add(call: RecordedCall, event: dict[str, Any]) -> None:
    kind, t = event["ev"], event["t"]
    if kind == "message":
        said = Said(t, event["type"], base64.b64decode(event.get("raw", "")), event["body"])
        (call.requests if event["dir"] == ">" else call.answers).append(said)
    elif kind == "headers":
        call.head = [(key, value) for key, value in event["metadata"]]
    elif kind == "trailers":
        call.ended, call.status, call.status_message = t, event["status"], event["status_message"]
        if event["trailers_only"]:
            call.head = [(key, value) for key, value in event["metadata"]]
    elif kind == "reset":
        call.ended, call.reset_by = t, event["dir"]
