"""What travels beside a message: deadline, peer, metadata, typed values, per-connection state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from nsmesh.core.errors import TimedOut

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """How a value outlives its process.

    ``dump`` returns None for one that does not, ``load`` raises ValueError.
    """

    dump: Callable[[T], bytes | None]
    load: Callable[[bytes], T]


class Key(Generic[T]):
    """A typed key. Two keys are the same only if they are the same object.

    With a ``codec`` what a ``State`` has under it is kept in the journal, under the key's name: no two of
    these may have the same name.
    """

    __slots__ = ("codec", "name")

    def __init__(self, name: str, codec: Codec[T] | None = None) -> None:
        self.name = name
        self.codec = codec
        if codec is not None:
            _KEPT[name] = self

    def __repr__(self) -> str:
        return f"Key({self.name})"


_KEPT: dict[str, Key[Any]] = {}


class State:
    """Scratch storage of one connection in one half of a process; dropped on Close."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[Key[Any], Any] = {}

    def get(self, key: Key[T]) -> T | None:
        """Return what is stored under ``key``, or None."""
        value: T | None = self._values.get(key)
        return value

    def set(self, key: Key[T], value: T) -> None:
        """Store ``value`` under ``key``."""
        self._values[key] = value

    def pop(self, key: Key[T]) -> T | None:
        """Remove and return what is stored under ``key``, or None."""
        value: T | None = self._values.pop(key, None)
        return value

    def packed(self) -> dict[str, bytes]:
        """Return what outlives the process, by name of the key."""
        found = {}
        for key, value in self._values.items():
            codec = key.codec
            if codec is not None:
                body = codec.dump(value)
                if body is not None:
                    found[key.name] = body
        return found

    def unpack(self, packed: Mapping[str, bytes]) -> None:
        """Store what :meth:`packed` gave; names that nobody knows any more are left out.

        Raises ValueError.
        """
        for name, body in packed.items():
            key = _KEPT.get(name)
            if key is not None and key.codec is not None:
                self._values[key] = key.codec.load(body)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls, or who answers.

    ``spiffe_id`` and ``certificate`` (DER of the leaf) come from TLS, ``uid``, ``gid`` and ``pid`` from the
    unix socket; each is empty or None where the transport does not know it. ``in_process`` marks a role of
    the same process: what it says needs no proof. ``shown`` is the leaf (DER) that we showed to it: what we
    sign for it has to fit that one.
    """

    spiffe_id: str = ""
    certificate: bytes = b""
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    in_process: bool = False
    shown: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """Beside the message. Frozen: an element that has something to add passes a changed copy on.

    ``deadline``: loop time or None. ``metadata``: what came with the call, in order, keys in lower case.
    ``reply``: initial metadata to send back (shared by all copies of one call). ``state``: this connection's
    scratch storage in this half, given by ``Begin``. ``values``: typed keys of one call.
    """

    deadline: float | None = None
    peer: Peer = Peer()
    metadata: tuple[tuple[str, str], ...] = ()
    reply: dict[str, str] = field(default_factory=dict)
    state: State = field(default_factory=State)
    values: Mapping[Key[Any], Any] = field(default_factory=dict)

    def get(self, key: Key[T]) -> T | None:
        """Return the value that an outer element put under ``key``, or None."""
        value: T | None = self.values.get(key)
        return value

    def put(self, key: Key[T], value: T) -> Call:
        """Return a copy that carries ``value`` under ``key``."""
        values = {**self.values, key: value}
        return Call(self.deadline, self.peer, self.metadata, self.reply, self.state, values)

    def on(self, state: State) -> Call:
        """Return a copy with the scratch storage of a connection."""
        # written out, here and above: dataclasses.replace takes three times as long, and calls are copied
        # more than fifty times in the life of a connection
        return Call(self.deadline, self.peer, self.metadata, self.reply, state, self.values)

    def header(self, name: str) -> list[str]:
        """Return all values of one metadata key, in order."""
        return [value for key, value in self.metadata if key == name]

    def remaining(self) -> float | None:
        """Return the seconds left, or None without a deadline; raises TimedOut when none are."""
        if self.deadline is None:
            return None
        left = self.deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise TimedOut("the deadline of this call has passed")
        return left

    def within(self, seconds: float) -> Call:
        """Return a copy that ends ``seconds`` from now at the latest."""
        limit = asyncio.get_running_loop().time() + seconds
        if self.deadline is not None and self.deadline <= limit:
            return self
        return Call(limit, self.peer, self.metadata, self.reply, self.state, self.values)

    def fresh(self) -> Call:
        """Return what is left of the call for work that outlives it: the peer, and nothing else."""
        return Call(peer=self.peer)
