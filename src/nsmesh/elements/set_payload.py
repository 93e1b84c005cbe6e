"""SetPayload: a service that names no payload carries IP."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.model.messages import IP, Entry, NetworkService


class SetPayload(Element):
    """Fills in the payload of a service that is registered without one. Find's templates stay as they are."""

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Fill in, pass on."""
        if isinstance(entry, NetworkService) and not entry.payload:
            entry.payload = IP
        return await next.register(call, entry)
