"""Points in time on the wire: protobuf Timestamps and RFC 3339 text, against seconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

REMEMBERED = 128
"""Points in time whose text is remembered: the ends of tokens that are handed out again and again."""

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:([Zz])|([+-])(\d\d):(\d\d))"
)


def timestamp(seconds: float) -> Timestamp:
    """Return ``seconds`` since the epoch as a Timestamp (microseconds are kept)."""
    stamp = Timestamp()
    set_timestamp(stamp, seconds)
    return stamp


def set_timestamp(stamp: Timestamp, seconds: float) -> None:
    """Write what :func:`timestamp` returns into a field of a message."""
    whole, fraction = divmod(round(seconds * 1_000_000), 1_000_000)
    stamp.seconds = whole
    stamp.nanos = fraction * 1000


def seconds(stamp: Timestamp) -> float:
    """Return a Timestamp as seconds since the epoch."""
    return float(stamp.seconds) + stamp.nanos / 1e9


@lru_cache(maxsize=REMEMBERED)
def rfc3339(moment: float) -> str:
    """Return ``moment`` (seconds since the epoch) as RFC 3339 text in UTC, with nine decimals."""
    stamp = timestamp(moment)
    whole = datetime.fromtimestamp(stamp.seconds, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{stamp.nanos:09d}Z"


@lru_cache(maxsize=REMEMBERED)
def from_rfc3339(text: str) -> float:
    """Return RFC 3339 ``text`` (any offset) as seconds since the epoch; raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no RFC 3339 time")
    fraction, zulu, sign, hours, minutes = match.group(7, 8, 9, 10, 11)
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    if not zulu:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        whole += -offset if sign == "+" else offset
    return whole.timestamp() + (int(fraction.ljust(9, "0")) / 1e9 if fraction else 0.0)
