"""Judging what ours answers to the calls of played roles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from interop_compare import Difference
from interop_rules import AS_UP, clause_of, same_status
from interop_trace import CLASSES, FINDS, RecordedCall

from nsmesh.core.errors import MeshError, Status
from nsmesh.model import methods
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import ConnectionEvent, ConnectionEventType, State

if TYPE_CHECKING:
    from interop_asking import Asked
    from interop_player import Player


class Answers:
    """The judge of one play."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._compare = player.compare

    def judge(self, asked: Asked) -> None:
        """Compare what came of a call with what was recorded."""
        call = asked.call
        self._player.compared += 1
        where = f"{call.client}>{call.server} {call.verb} answer"
        if call.method == methods.MONITOR:
            self._player.note(*self._events(asked, where))
        elif call.method in FINDS:
            self._player.note(*self._found(asked, where))
        else:
            self._player.note(*self._unary(asked, where))

    def _unary(self, asked: Asked, where: str) -> Iterator[Difference]:
        call = asked.call
        yield from self._status(call, asked.error, where)
        if call.status == 0 and asked.error is None:
            recorded = call.answers[0]
            if recorded.message is not None:
                ours = type(recorded.message).FromString(asked.answers[0])
                yield from self._compare.message(recorded.message, ours, where + ":")
        texts, mine = call.answer_header("path"), [value for key, value in asked.head if key == "path"]
        if texts and asked.error is None:
            if mine:
                yield from self._compare.path(texts[0], mine[0], f"{where} path")
            else:
                yield Difference(f"{where} path", texts[0], "nothing")

    def _status(self, call: RecordedCall, error: MeshError | None, where: str) -> Iterator[Difference]:
        if call.status is None:
            return  # the player gave up waiting, as the stand-in did
        ours = 0 if error is None else int(error.status)
        text = "" if error is None else str(error)
        if not same_status(call.status, call.status_message, ours):
            yield Difference(f"{where} status", f"{call.status} {call.status_message}", f"{ours} {text}")
            return
        clause = clause_of(call.status_message)
        if clause and error is not None and clause not in text:
            yield Difference(f"{where} message", call.status_message, text)

    def _found(self, asked: Asked, where: str) -> Iterator[Difference]:
        """Compare results of a Find: as a set at first, then each change in order."""
        call = asked.call
        if call.ended is not None and not call.reset_by and not broken_watch(call, asked.error):
            yield from self._status(call, asked.error, where)
        theirs = [
            said.message for said in call.answers if said.message is not None and (call.t >= 0 or said.t >= 0)
        ]
        kind = CLASSES[call.answers[0].type or ""] if call.answers else None
        mine = [kind.FromString(raw) for raw in asked.answers] if kind else []
        if call.t < 0:
            mine = mine[len(call.answers) - len(theirs) :]
        if kind is None and asked.answers:
            yield Difference(where, "nothing", f"{len(asked.answers)} results")
        yield from self._all(sorted(theirs, key=_order), sorted(mine, key=_order), where)

    def _all(self, theirs: list[Any], mine: list[Any], where: str) -> Iterator[Difference]:
        if len(theirs) != len(mine):
            yield Difference(f"{where} count", list(map(_name, theirs)), list(map(_name, mine)))
            return
        for one, other in zip(theirs, mine, strict=True):
            yield from self._compare.message(one, other, where + ":")

    def _events(self, asked: Asked, where: str) -> Iterator[Difference]:
        """Compare what a monitor told of each connection: the states in order, and the first word."""
        theirs = [said.message for said in asked.call.answers if said.t >= min(asked.call.t, 0.0)]
        mine = [ConnectionEvent.FromString(raw) for raw in asked.answers]
        if asked.call.t < 0:  # what there was before is not repeated
            theirs = [said.message for said in asked.call.answers if said.t >= 0]
            mine = mine[1:]
        if not theirs:
            return
        if bool(theirs) != bool(mine) or (mine and mine[0].type != theirs[0].type):  # type: ignore[union-attr]
            yield Difference(f"{where} first event", theirs[:1], mine[:1])
            return
        one, other = _told(theirs), _told(mine)  # type: ignore[arg-type]
        for key in one:
            live = self._player.b.ids.get(key, key)
            found = other.pop(live, [])
            states, ours = _states(one[key]), _states(found)
            if states != ours:
                yield Difference(f"{where} states", states, ours)
            elif found:
                first = copy_of(one[key][0][1])
                first.state = found[0][1].state  # compared above
                yield from self._compare.message(first, found[0][1], f"{where} first:")
        for key, found in other.items():
            yield Difference(f"{where} connection", "nothing", f"{key}: {_states(found)}")


def broken_watch(call: RecordedCall, error: MeshError | None) -> bool:
    """Whether a watch ended because the registry behind it went away: ours says so, Go says OK."""
    watching = bool(getattr(call.request, "watch", False))
    return watching and call.status == 0 and error is not None and error.status == Status.UNAVAILABLE


def _order(found: Message) -> tuple[bool, str]:
    return bool(getattr(found, "deleted", False)), _name(found)


def _name(found: Any) -> str:
    entry = getattr(found, "network_service", None) or found.network_service_endpoint
    return f"{'-' if found.deleted else ''}{entry.name}"


def _told(events: list[ConnectionEvent]) -> dict[str, list[tuple[str, Any]]]:
    told: dict[str, list[tuple[str, Any]]] = {}
    for event in events:
        gone = event.type == ConnectionEventType.DELETE
        for key, connection in event.connections.items():
            state = "DELETE" if gone else State.Name(connection.state).replace(AS_UP, "UP")
            told.setdefault(key, []).append((state, connection))
    return told


def _states(told: list[tuple[str, Any]]) -> list[str]:
    """Return the states in order, each once where it is repeated: a slow listener hears the newest only."""
    out: list[str] = []
    for state, _ in told:
        if not out or out[-1] != state:
            out.append(state)
    return out
