"""Begin for the half of a process that asks: it knows what was asked for, and what of it was answered."""

from __future__ import annotations

from nsmesh.core.begin import Begin
from nsmesh.core.living import Living
from nsmesh.model.copying import copy_of
from nsmesh.model.merge import first_wish, merged, next_wish, restores
from nsmesh.model.messages import Connection, NetworkServiceRequest, State


class BeginClient(Begin):
    """A Begin of the client's half: a new Request of a living connection is merged with what was returned.

    See :mod:`nsmesh.model.merge` for whose word counts in which field. A first Request whose path goes on
    behind us, where we are the first hop, takes up what an earlier process of ours was granted: the next hop
    has it, so it lives from now on, and a Request that fails leaves it as it is.
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
        if not life.up and life.wanted is None and _takes_over(wanted):
            self._take_over(life, request)
        answered, before = life.connection, life.request
        if answered is None or before is None:
            life.wish = first_wish(wanted)
            return
        asked = before.connection
        life.wish = next_wish(wanted, asked, answered)
        wanted.CopyFrom(merged(wanted, asked, answered))

    def _take_over(self, life: Living, request: NetworkServiceRequest) -> None:
        kept = copy_of(request)
        life.wish = first_wish(request.connection)
        self.strip(life, kept)
        life.request, life.connection = kept, request.connection


def _takes_over(wanted: Connection) -> bool:
    return wanted.path.index == 0 and restores(wanted) and wanted.state != State.RESELECT_REQUESTED
