"""SetRegistrationTime: since when an endpoint is registered."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.lookup import find_endpoints
from nsmesh.model.messages import Entry, NetworkServiceEndpoint
from nsmesh.model.times import timestamp


class SetRegistrationTime(Element):
    """Keeps ``initial_registration_time`` of an endpoint from its first Register to its removal.

    What the rest of the chain has stored goes first, then what the endpoint says (it was registered before
    the registry lost its memory), then now. Nothing is remembered here, so nothing can be forgotten.

    After:  Begin
    Reads:  the stored entry, by a Find of its name
    """

    after = ("Begin",)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Set the time, pass on."""
        if isinstance(entry, NetworkServiceEndpoint) and entry.name:
            for stored in await find_endpoints(next, call, NetworkServiceEndpoint(name=entry.name)):
                if stored.HasField("initial_registration_time"):
                    entry.initial_registration_time.CopyFrom(stored.initial_registration_time)
            if not entry.HasField("initial_registration_time"):
                entry.initial_registration_time.CopyFrom(timestamp(self.scope.clock.now()))
        return await next.register(call, entry)
