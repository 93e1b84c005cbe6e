"""The face of HTTP/2 without I/O: bytes in, events out; calls in, bytes out. Two engines stand behind it.

Nothing above this line knows an HTTP/2 library. Header lists are pairs of bytes, names in lower case.
Operations on a stream that has ended meanwhile are ignored: its end has been, or will be, told by an event.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from nsmesh.rpc.limits import Limits

HeaderList = Sequence[tuple[bytes, bytes]]

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
ENHANCE_YOUR_CALM = 0xB
INADEQUATE_SECURITY = 0xC

_CODES = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)

LAST_STREAM = 0x7FFFFFFF
"""The highest stream id: a GOAWAY that names it announces the end and refuses nothing yet."""

CONNECTION_WINDOW = 1 << 30
"""Flow control window of a connection, bytes: no bound, so that one slow stream never stops the others."""

LONGEST_FRAME = 16384
"""Bytes of a frame that both engines take, its head apart."""

HARD_HEADERS = 4
"""A header list of so many times its limit ends the connection; below that, only its call."""


class Headers(NamedTuple):
    """A request began, or an answer to ours did."""

    stream: int
    headers: HeaderList
    ended: bool


class Data(NamedTuple):
    """Bytes of a stream. The receiver says ``consumed`` when it has room again."""

    stream: int
    data: bytes
    ended: bool


class Trailers(NamedTuple):
    """The last headers of a stream."""

    stream: int
    headers: HeaderList


class Reset(NamedTuple):
    """The peer gave a stream up, or broke a rule on it."""

    stream: int
    code: int


class GoAway(NamedTuple):
    """The peer takes no new streams; those above ``last`` were not looked at."""

    last: int
    code: int


class Settings(NamedTuple):
    """The peer's settings came: the first one ends its handshake."""


class Ping(NamedTuple):
    """The peer asked for a sign of life; the engine has answered."""


class Pong(NamedTuple):
    """The peer answered our ping."""

    payload: bytes


Event = Headers | Data | Trailers | Reset | GoAway | Settings | Ping | Pong


class EngineError(Exception):
    """The peer's bytes are no HTTP/2, or too much of it: the connection is over.

    ``farewell`` is what to send before closing.
    """

    def __init__(self, text: str, farewell: bytes = b"") -> None:
        super().__init__(text)
        self.farewell = farewell


class Engine(Protocol):
    """One side of one connection."""

    def start(self) -> None:
        """Queue what opens a connection."""
        ...

    def feed(self, data: bytes) -> list[Event]:
        """Return what ``data`` means, whatever its cuts; raises EngineError."""
        ...

    def take(self, amount: int) -> bytes:
        """Return up to about ``amount`` bytes that may go out now; empty when there are none."""
        ...

    def silent(self) -> bool:
        """Whether there is surely nothing to ``take`` and the connection lives; False where nobody knows."""
        ...

    def over(self) -> str | None:
        """Return None while the connection lives; else, after ``take``, why it ended, empty for no fault."""
        ...

    def request(self, headers: HeaderList) -> int:
        """Open a stream and return its id. It waits by itself while the peer allows no more streams."""
        ...

    def headers(self, stream: int, headers: HeaderList, *, ended: bool) -> None:
        """Answer a request; ``ended`` without a body."""
        ...

    def data(self, stream: int, data: bytes, *, ended: bool) -> None:
        """Queue bytes of a stream; they wait for the peer's window."""
        ...

    def trailers(self, stream: int, headers: HeaderList) -> None:
        """End a stream, after all its queued bytes."""
        ...

    def reset(self, stream: int, code: int) -> None:
        """Give a stream up and drop what it has queued."""
        ...

    def consumed(self, stream: int, size: int) -> None:
        """Let the peer send ``size`` more bytes on the stream and on the connection."""
        ...

    def queued(self, stream: int) -> int:
        """Return how many bytes of the stream wait to go out."""
        ...

    def queued_in_all(self) -> int:
        """Return how many bytes of all streams wait to go out."""
        ...

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life; ``payload`` is eight bytes."""
        ...

    def goaway(self, last: int, code: int) -> None:
        """Take no new streams above ``last``; those that run may end."""
        ...


def goaway_frame(last: int, code: int) -> bytes:
    """Return a GOAWAY frame, for engines that can no longer make one."""
    return struct.pack(">BHBBIII", 0, 8, 7, 0, 0, last, code)


def code_name(code: int) -> str:
    """Return the name of an error code, as the standard has it."""
    return _CODES[code] if code < len(_CODES) else f"error {code}"


def make(name: str | None, limits: Limits, *, client: bool) -> Engine:
    """Return an engine: ``ng`` (libnghttp2), ``h2`` (pure Python), or None: the better that is there."""
    if name not in {None, "ng", "h2"}:
        raise ValueError(f"there is no HTTP/2 engine {name!r}: choose ng or h2")
    if name != "h2":
        try:
            from nsmesh.rpc.engine_ng import NgEngine  # noqa: PLC0415 - a compiled library that may be missing
        except ImportError:
            if name == "ng":
                raise
        else:
            return NgEngine(limits, client=client)
    from nsmesh.rpc.engine_h2 import H2Engine  # noqa: PLC0415 - the fallback

    return H2Engine(limits, client=client)
