"""Reading ``spec.liveness`` of a Workload: how the mesh looks whether packets go through its wires."""

from __future__ import annotations

from nsmesh.model.duration import format_duration, parse_duration
from nsmesh.model.manifest_fields import Fields
from nsmesh.model.manifest_records import LivenessCheck

SHORTEST, LONGEST = 0.01, 3600.0
"""Seconds that an interval or a timeout may be."""
_MOST = 100


def read_liveness(spec: Fields) -> LivenessCheck | None:
    """Return what stands there, or None where nothing does."""
    found = spec.mapping("liveness", ("interval", "timeout", "count"))
    if found is None:
        return None
    usual = LivenessCheck()
    return LivenessCheck(
        _seconds(found, "interval", usual.interval),
        _seconds(found, "timeout", usual.timeout),
        found.integer("count", 1, _MOST, usual.count),
    )


def _seconds(found: Fields, name: str, usual: float) -> float:
    node, text = found.get(name), found.text(name)
    if node is None or not text:
        return usual
    try:
        value = parse_duration(text)
    except ValueError as error:
        found.report.add(node, f"{found.where(name)}: {error}", f"write {name}: {format_duration(usual)}")
        return usual
    if not SHORTEST <= value <= LONGEST:
        between = f"from {format_duration(SHORTEST)} to {format_duration(LONGEST)}"
        found.report.add(
            node,
            f"{found.where(name)} must be {between}, not {text}",
            f"write {name}: {format_duration(usual)}",
        )
        return usual
    return value
