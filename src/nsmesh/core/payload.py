"""Payloads by name: what a wire carries."""

from __future__ import annotations

from nsmesh.core.errors import Invalid
from nsmesh.model.messages import PAYLOADS, Connection
from nsmesh.model.names import nearest


def check_payload(connection: Connection) -> None:
    """Raise Invalid where a connection's payload is none that a wire can be made for; empty means IP."""
    payload = connection.payload
    if not payload or payload in PAYLOADS:
        return
    near = nearest(payload.upper(), PAYLOADS)
    service = connection.network_service or "the network service"
    raise Invalid(
        f"{service} has payload {payload!r}, and no wire here carries that",
        remedy=(f"did you mean {near}? " if near else "") + f"there are {', '.join(PAYLOADS)}",
    )
