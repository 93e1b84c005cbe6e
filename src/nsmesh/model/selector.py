"""Which connections a monitor asks for."""

from __future__ import annotations

from nsmesh.model.messages import Connection, MonitorScopeSelector, PathSegment


def selected(selector: MonitorScopeSelector, connection: Connection) -> bool:
    """Return whether ``connection`` is asked for.

    Nothing in the selector means everything. Its segments must match a contiguous run of the connection's,
    its services are any-of, and where it has both, both must hold.
    """
    if selector.network_services and connection.network_service not in selector.network_services:
        return False
    wanted, segments = list(selector.path_segments), list(connection.path.path_segments)
    starts = range(len(segments) - len(wanted) + 1)
    return any(all(map(_same, wanted, segments[start:])) for start in starts)


def _same(wanted: PathSegment, segment: PathSegment) -> bool:
    """Compare one segment; what is empty in ``wanted`` is a wildcard."""
    return (
        wanted.name in ("", segment.name)
        and wanted.id in ("", segment.id)
        and wanted.token in ("", segment.token)
    )


def speaks_of(connection: Connection, name: str) -> tuple[str, int] | None:
    """Return id and index of ``name``'s path segment that a next hop's event is about, or None.

    An event of the next hop has the hop's own index, one behind the consumer's; some relay it with the
    consumer's.
    """
    index = connection.path.index
    segments = connection.path.path_segments
    for own in (index - 1, index):
        if 0 <= own < len(segments) and segments[own].name == name:
            return segments[own].id, own
    return None
