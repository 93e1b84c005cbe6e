"""Comparing what ours sends with what Go sent, field by field, by the rules of interop_rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from interop_bindings import UUID, Bindings, verifies
from interop_fields import is_map
from interop_rules import CLOSE, GENERATED, REUSE, TIMEOUT_MARGIN

from nsmesh.model.registry_path import read_registry_path
from nsmesh.model.times import from_rfc3339, seconds
from nsmesh.rpc import framing
from nsmesh.security import jws

TOKEN_HEADER = "nsm-client-token"
EXPIRES_HEADER = "nsm-client-token-expires"


@dataclass(frozen=True)
class Difference:
    """One place at which ours is not as recorded."""

    where: str
    recorded: object
    ours: object

    def __str__(self) -> str:
        return f"{self.where}: recorded {_short(self.recorded)}, ours {_short(self.ours)}"


def _short(value: object) -> str:
    text = str(value).replace("\n", " ")
    return text if len(text) < 200 else f"{text[:200]}..."


class Comparison:
    """Compares with the bindings of one play; values of ours that are met for the first time are bound."""

    def __init__(self, bindings: Bindings) -> None:
        self._b = bindings

    def message(self, recorded: Message, ours: Message, where: str) -> Iterator[Difference]:
        """Yield the differences of two messages of one class."""
        if isinstance(recorded, Timestamp):
            yield from self._time(seconds(recorded), seconds(ours), where)  # type: ignore[arg-type]
            return
        theirs, mine = dict(recorded.ListFields()), dict(ours.ListFields())
        for field in sorted({*theirs, *mine}, key=lambda one: one.number):
            place = f"{where} {field.name}" if where.endswith(":") else f"{where}.{field.name}"
            if field not in theirs or field not in mine:
                yield Difference(place, theirs.get(field, "nothing"), mine.get(field, "nothing"))
            elif is_map(field):
                yield from self._map(theirs[field], mine[field], place)
            elif field.is_repeated:
                yield from self._repeated(list(theirs[field]), list(mine[field]), place)
            elif field.message_type:
                yield from self.message(theirs[field], mine[field], place)
            else:
                yield from self._value(theirs[field], mine[field], place)

    def _map(self, theirs: Any, mine: Any, place: str) -> Iterator[Difference]:
        left = dict(mine)
        for key in theirs:
            live = self._b.ids.get(key, key)
            if live not in left and UUID.fullmatch(key) and len(theirs) == len(mine) == 1:
                live = next(iter(left))
                if not self._b.bound(self._b.ids, key, live):
                    yield Difference(f"{place}[key]", self._b.ids.get(key), live)
            if live not in left:
                yield Difference(f"{place}[{key}]", theirs[key], "nothing")
                continue
            found = left.pop(live)
            shown = key if not UUID.fullmatch(key) else "id"
            if isinstance(theirs[key], Message):
                yield from self.message(theirs[key], found, f"{place}[{shown}]")
            else:
                yield from self._value(theirs[key], found, f"{place}[{shown}]")
        for key, value in left.items():
            yield Difference(f"{place}[{'id' if UUID.fullmatch(key) else key}]", "nothing", value)

    def _repeated(self, theirs: list[Any], mine: list[Any], place: str) -> Iterator[Difference]:
        for number, (one, other) in enumerate(zip(theirs, mine, strict=False)):
            if isinstance(one, Message):
                yield from self.message(one, other, f"{place}[{number}]")
            else:
                yield from self._value(one, other, f"{place}[{number}]")
        for number in range(min(len(theirs), len(mine)), max(len(theirs), len(mine))):
            here, there = theirs[number : number + 1], mine[number : number + 1]
            yield Difference(f"{place}[{number}]", (here or ["nothing"])[0], (there or ["nothing"])[0])

    def _value(self, theirs: Any, mine: Any, place: str) -> Iterator[Difference]:
        if isinstance(theirs, str):
            yield from self._text(theirs, mine, place)
        elif theirs != mine:
            yield Difference(place, theirs, mine)

    def _text(self, theirs: str, mine: str, place: str) -> Iterator[Difference]:
        if place.endswith("[vni]"):
            yield from self._vni(theirs, mine, place)
        elif self._b.is_token(theirs):
            yield from self.token(self._b.token_names[theirs], mine, place)
        elif UUID.fullmatch(theirs):
            if not UUID.fullmatch(mine) or not self._b.bound(self._b.ids, theirs, mine):
                yield Difference(place, self._b.ids.get(theirs, theirs), mine)
        elif theirs.startswith("inode://") and theirs not in self._b.trace.inodes:
            if not mine.startswith("inode://") or not self._b.bound(self._b.urls, theirs, mine):
                yield Difference(place, self._b.urls.get(theirs, theirs), mine)
        elif GENERATED.fullmatch(theirs.removeprefix("KERNEL/")):
            yield from self._generated(theirs, mine, place)
        elif self._b.text(theirs) != mine:
            yield Difference(place, self._b.text(theirs), mine)

    def _vni(self, theirs: str, mine: str, place: str) -> Iterator[Difference]:
        fits = mine.isdecimal() and 0 < int(mine) < 1 << 24 and int(mine) % 2 == int(theirs) % 2
        if not fits or not self._b.bound(self._b.names, theirs, mine):
            yield Difference(place, self._b.names.get(theirs, theirs), mine)

    def _generated(self, theirs: str, mine: str, place: str) -> Iterator[Difference]:
        one, other = theirs.removeprefix("KERNEL/"), mine.removeprefix("KERNEL/")
        if not GENERATED.fullmatch(other) or not self._b.bound(self._b.names, one, other):
            yield Difference(place, self._b.names.get(one, one), mine)

    def _time(self, theirs: float, mine: float, place: str) -> Iterator[Difference]:
        expected = theirs + self._b.delta
        reuse = REUSE * max(expected - self._b.clock.now(), 0.0)
        if not expected - CLOSE - reuse <= mine <= expected + CLOSE:
            yield Difference(place, f"in {expected - self._b.clock.now():.1f} s", f"{mine - expected:+.1f} s")

    def token(self, name: str, ours: str, place: str) -> Iterator[Difference]:
        """Yield the differences of a live token to a recorded one; bind it."""
        b = self._b
        known = b.tokens.get(name)
        if known is not None:
            if known != ours:
                yield Difference(place, f"the token {name}, as before", _claims(ours))
            return
        recorded = b.trace.tokens[name]
        try:
            parsed = jws.parse(ours)
        except jws.BadToken as error:
            yield Difference(place, recorded["claims"], error)
            return
        b.tokens[name] = ours
        if parsed.header != recorded["header"]:
            yield Difference(f"{place} header", recorded["header"], parsed.header)
        wanted, claims = recorded["claims"], parsed.claims
        for key in sorted({*wanted, *claims} - {"exp"}):
            if wanted.get(key) != claims.get(key):
                yield Difference(f"{place} {key}", wanted.get(key, "nothing"), claims.get(key, "nothing"))
        yield from self._time(float(wanted["exp"]), float(claims.get("exp", 0)), f"{place} exp")
        signer = b.svids.get(recorded["signature"])
        if signer is None or not verifies(ours, signer):
            yield Difference(f"{place} signature", recorded["signature"], "somebody else")

    def proof(self, metadata: list[tuple[str, str]], audience: str, where: str) -> Iterator[Difference]:
        """Yield what is wrong with the token of a call of ours that was not recorded."""
        ours = self._b.svids[self._b.role]
        tokens = [value for key, value in metadata if key == TOKEN_HEADER]
        expiries = [value for key, value in metadata if key == EXPIRES_HEADER]
        if len(tokens) != 1 or len(expiries) != 1:
            yield Difference(f"{where} token headers", "one each", metadata)
            return
        parsed = jws.parse(tokens[0])
        wanted = {"sub": ours.spiffe_id, "aud": [audience], "exp": parsed.claims.get("exp")}
        if parsed.claims != wanted or not verifies(tokens[0], ours):
            yield Difference(f"{where} token", wanted, parsed.claims)
        if not 0 <= from_rfc3339(expiries[0]) - float(parsed.claims["exp"]) + 1 <= 1 + CLOSE:
            yield Difference(f"{where} {EXPIRES_HEADER}", parsed.claims["exp"], expiries[0])

    def request_headers(
        self, recorded: list[tuple[str, str]], ours: list[tuple[str, str]], where: str
    ) -> Iterator[Difference]:
        """Yield the differences of the headers that mean something."""
        theirs, mine = dict(recorded), dict(ours)
        for key in (TOKEN_HEADER, EXPIRES_HEADER, "path"):
            count = sum(1 for name, _ in ours if name == key)
            if count != sum(1 for name, _ in recorded if name == key):
                yield Difference(f"{where} {key}", theirs.get(key, "nothing"), f"{count} times")
        if TOKEN_HEADER in theirs and TOKEN_HEADER in mine:
            yield from self.token(theirs[TOKEN_HEADER], mine[TOKEN_HEADER], f"{where} {TOKEN_HEADER}")
        if EXPIRES_HEADER in theirs and EXPIRES_HEADER in mine:
            yield from self._time(
                from_rfc3339(theirs[EXPIRES_HEADER]),
                from_rfc3339(mine[EXPIRES_HEADER]),
                f"{where} {EXPIRES_HEADER}",
            )
        if "path" in theirs and "path" in mine:
            yield from self.path(theirs["path"], mine["path"], f"{where} path")

    def own_segment(
        self, recorded: Message, ours: Message, metadata: list[tuple[str, str]], where: str
    ) -> Iterator[Difference]:
        """Yield what is wrong with our own segment of a call of ours; take token and expiry out of both.

        Go leaves there what its own client was told; the next hop replaces it by the header. Ours has the
        header's token there from the start.
        """
        one, other = (getattr(message, "connection", message) for message in (recorded, ours))
        if not hasattr(one, "path"):
            return
        headers = dict(metadata)
        for connection in (one, other):
            index = connection.path.index
            if index < len(connection.path.path_segments):
                segment = connection.path.path_segments[index]
                if connection is other and segment.token != headers.get(TOKEN_HEADER):
                    yield Difference(f"{where} own token", "that of the header", _claims(segment.token))
                segment.ClearField("token")
                segment.ClearField("expires")

    def path(self, recorded: str, ours: str, where: str) -> Iterator[Difference]:
        """Yield the differences of two ``path`` headers; ours has the keys as Go writes them."""
        theirs, mine = read_registry_path(recorded), read_registry_path(ours)
        if set(json.loads(ours)) != {"Index", "PathSegments"}:
            yield Difference(f"{where} keys", "Index, PathSegments", ours)
        if theirs.index != mine.index:
            yield Difference(f"{where} index", theirs.index, mine.index)
        if len(theirs.tokens) != len(mine.tokens):
            yield Difference(f"{where} segments", len(theirs.tokens), len(mine.tokens))
        for number, (one, other) in enumerate(zip(theirs.tokens, mine.tokens, strict=False)):
            if one.startswith("@token:"):
                yield from self.token(one, other, f"{where}[{number}]")
            elif one != other:
                yield Difference(f"{where}[{number}]", one, other)

    def timeout(self, recorded: list[str], remaining: float | None, where: str) -> Iterator[Difference]:
        """Yield the difference of two deadlines: ours is not later, and hardly earlier."""
        budget = framing.decode_timeout(recorded[0].encode()) if recorded else None
        if budget is None or remaining is None:
            fits = budget is remaining
        else:
            fits = abs(remaining - budget) <= TIMEOUT_MARGIN
        if not fits:
            yield Difference(f"{where} grpc-timeout", budget, remaining)


def _claims(token: str) -> object:
    try:
        return jws.parse(token).claims
    except jws.BadToken as error:
        return error
