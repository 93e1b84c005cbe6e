"""When to refresh: a part of the life that the shortest-lived token of the path has left."""

from __future__ import annotations

from nsmesh.model.messages import Path
from nsmesh.model.times import seconds


def refresh_delay(path: Path, now: float) -> float | None:
    """Return the seconds until a connection should be refreshed, or None when nothing in it expires.

    0.2 to 0.4 of the shortest remaining life, later for those further along the path so that a client's
    refresh spares them their own; a third for a path of one segment. 0 when a token has ended. ``now`` is
    wall time.
    """
    segments = path.path_segments
    lives = [seconds(segment.expires) - now for segment in segments if segment.HasField("expires")]
    if not lives:
        return None
    scale = 0.2 + 0.2 * path.index / len(segments) if len(segments) > 1 else 1 / 3
    return max(0.0, min(lives) * scale)
