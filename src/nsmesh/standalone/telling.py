"""Facts in a few words."""

from __future__ import annotations

import json
from pathlib import Path

from nsmesh.model.messages import Connection, Match


def summary(connection: Connection, took: float) -> str:
    """Return one sentence on a wire that is up; ``took`` seconds."""
    ip = connection.context.ip_context
    name = connection.mechanism.parameters.get("name", "?")
    return (
        f"wire {name} to {connection.network_service_endpoint_name} up in {took * 1e3:.0f} ms: "
        f"{', '.join(ip.src_ip_addrs) or 'no address'} -> {', '.join(ip.dst_ip_addrs) or 'no address'}"
    )


def describe_match(match: Match) -> str:
    """Return one match of a service: ``app=firewall -> app=gateway``."""
    source = ",".join(f"{key}={value}" for key, value in sorted(match.source_selector.items())) or "any"
    routes = " or ".join(
        ",".join(f"{key}={value}" for key, value in sorted(route.destination_selector.items())) or "any"
        for route in match.routes
    )
    return f"{source} -> {routes or 'none'}" + (" (fallthrough)" if match.fallthrough else "")


def last_line(path: Path) -> str:
    """Return the last line of a log, the text of its event where it is JSON."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    if not lines:
        return "it wrote no log"
    try:
        data = json.loads(lines[-1])
    except ValueError:
        return lines[-1]
    if not isinstance(data, dict):
        return lines[-1]
    return " ".join(str(data[name]) for name in ("event", "error") if data.get(name))


def duration(seconds: float) -> str:
    """Return a length of time as people write it: ``4s``, ``3m12s``, ``5h07m``, ``2d03h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
