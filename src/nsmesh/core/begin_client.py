"""Begin for the half of a process that asks: it knows what was asked for, and what of it was answered."""

from __future__ import annotations

from nsmesh.core.begin import Begin
from nsmesh.core.living import Living
from nsmesh.model.merge import first_wish, merged, next_wish
from nsmesh.model.messages import NetworkServiceRequest


class BeginClient(Begin):
    """A Begin of the client's half: a new Request of a living connection is merged with what was returned.

    See :mod:`nsmesh.model.merge` for whose word counts in which field.
    """

    def strip(self, life: Living, request: NetworkServiceRequest) -> None:
        """Keep also what the caller wishes."""
        super().strip(life, request)
        if life.wish is not None:
            request.connection.CopyFrom(life.wish)
            life.wish = None

    def merge(self, life: Living, request: NetworkServiceRequest) -> None:
        """See the class."""
        wanted = request.connection
        answered, before = life.connection, life.request
        if answered is None or before is None:
            life.wish = first_wish(wanted)
            return
        asked = before.connection
        life.wish = next_wish(wanted, asked, answered)
        wanted.CopyFrom(merged(wanted, asked, answered))
