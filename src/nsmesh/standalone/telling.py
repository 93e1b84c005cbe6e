"""Facts in a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nsmesh.model.messages import Connection, Match
from nsmesh.model.sockets import SOCKET_FILE

if TYPE_CHECKING:  # commands import this module, and shall start fast
    from nsmesh.standalone.client import Client, Wire

_TAIL = 64 << 10
"""Bytes of a log that are read from its end."""
_ERROR = "error: "


def summary(connection: Connection, took: float, passes: float | None) -> str:
    """Return one sentence on a wire that is up; times in seconds, as in :class:`Wire`."""
    ip = connection.context.ip_context
    given = connection.mechanism.parameters
    socket = given.get(SOCKET_FILE, "")
    name = given.get("name", "") or socket or "?"
    seen = f"packets pass after {passes * 1e3:.0f} ms" if passes is not None else "no packet came back yet"
    if socket:
        seen = "its packets are seen by whoever takes that socket alone"
    return (
        f"wire {name} to {connection.network_service_endpoint_name} up in {took * 1e3:.0f} ms, {seen}: "
        f"{', '.join(ip.src_ip_addrs) or 'no address'} -> {', '.join(ip.dst_ip_addrs) or 'no address'}"
    )


def told(client: Client, wire: Wire) -> list[tuple[str, str]]:
    """Return what there is to tell of a wire that just came up, as (kind, text): its path, hop by hop."""
    connection = client.connection(wire)
    if connection is None:
        return []
    hops = " -> ".join(segment.name for segment in connection.path.path_segments)
    out = [("request", f"request {wire.id} for {wire.url.service}: {hops}")]
    for segment in connection.path.path_segments:
        made = ", ".join(f"{name} {value}" for name, value in sorted(segment.metrics.items()))
        if made:
            out.append(("wire", f"  hop {segment.name}: {made}"))
    out.append(("wire", summary(connection, wire.took, wire.passes)))
    return out


def describe_match(match: Match) -> str:
    """Return one match of a service: ``app=firewall -> app=gateway``."""
    source = ",".join(f"{key}={value}" for key, value in sorted(match.source_selector.items())) or "any"
    routes = " or ".join(
        ",".join(f"{key}={value}" for key, value in sorted(route.destination_selector.items())) or "any"
        for route in match.routes
    )
    return f"{source} -> {routes or 'none'}" + (" (fallthrough)" if match.fallthrough else "")


def last_words(path: Path, begin: int = 0) -> str:
    """Return what a process said last, from byte ``begin`` of its log on.

    That is its error with all its lines, where it ended with one (``error: ...``, as our own commands do),
    else its last line; of a line in JSON the event and the error. Remedies are left out.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(max(begin, path.stat().st_size - _TAIL))
            lines = stream.read().decode(errors="replace").rstrip().splitlines()
    except OSError:
        lines = []
    lines = [line for line in lines if not line.startswith("  -> ")]
    if not lines:
        return "it wrote no log"
    starts = [number for number, line in enumerate(lines) if line.startswith(_ERROR)]
    if starts and all(line.startswith(" ") for line in lines[starts[-1] + 1 :]):
        return "\n".join(lines[starts[-1] :]).removeprefix(_ERROR)
    try:
        data = json.loads(lines[-1])
    except ValueError:
        return lines[-1].strip()
    if not isinstance(data, dict):
        return lines[-1].strip()
    return " ".join(str(data[name]) for name in ("event", "error") if data.get(name))


def duration(seconds: float) -> str:
    """Return a length of time as people write it: ``4s``, ``3m12s``, ``5h07m``, ``2d03h``.

    One that a clock which was set back makes negative is ``0s``.
    """
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
