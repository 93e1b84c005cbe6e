"""Durations as the field writes them: ``10m``, ``750ms``, ``1h30m`` (Go syntax), in seconds here."""

from __future__ import annotations

import re

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "\N{GREEK SMALL LETTER MU}s": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<unit>[^0-9.]+)")
_LONGEST = 2**63 - 1
_SECOND = _NANOSECONDS["s"]


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` stands for, exact to the nanosecond.

    Raises :class:`ValueError` with what is wrong and what to write.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    if not rest:
        raise ValueError(f"{text!r} is no duration; write a number and a unit, for example 10m or 750ms")
    total = 0
    at = 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            raise ValueError(f"{text!r} has a number without a unit; add one of ns, us, ms, s, m, h")
        total += _nanoseconds(text, part)
        at = part.end()
    if total > _LONGEST:
        raise ValueError(f"{text!r} is longer than a duration can be, about 292 years")
    return sign * total / _SECOND


def _nanoseconds(text: str, part: re.Match[str]) -> int:
    unit, whole, fraction = part["unit"], part["whole"], part["fraction"] or ""
    if unit not in _NANOSECONDS:
        raise ValueError(f"{text!r} has the unknown unit {unit!r}; the units are ns, us, ms, s, m, h")
    if not (whole or fraction):
        raise ValueError(f"{text!r} has a unit without a number; write for example 10m or 750ms")
    if len(whole) > 19:
        raise ValueError(f"{text!r} is longer than a duration can be, about 292 years")
    scale = _NANOSECONDS[unit]
    digits = fraction[:18]
    return int(whole or "0") * scale + (int(digits) * scale // 10 ** len(digits) if digits else 0)


def format_duration(seconds: float) -> str:
    """Return ``seconds`` in the form that Go prints: ``1h30m0s``, ``1.5s``, ``750ms``, ``0s``."""
    left = round(seconds * _SECOND)
    if left == 0:
        return "0s"
    sign = "-" if left < 0 else ""
    left = abs(left)
    if left < _SECOND:
        unit = next(unit for unit in ("ms", "us", "ns") if left >= _NANOSECONDS[unit])
        return f"{sign}{_decimal(left, _NANOSECONDS[unit])}{'µs' if unit == 'us' else unit}"
    minutes, left = divmod(left, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    out = f"{hours}h" if hours else ""
    if hours or minutes:
        out += f"{minutes}m"
    return f"{sign}{out}{_decimal(left, _SECOND)}s"


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    digits = len(str(scale)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")
