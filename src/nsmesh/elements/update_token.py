"""UpdateToken: who spoke to us, and for how long; and who we are, to whom we answer."""

from __future__ import annotations

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.tokens import TokenSource, received_token, sends_token
from nsmesh.model.messages import Connection, NetworkServiceRequest, PathSegment
from nsmesh.model.times import set_timestamp

log = structlog.get_logger()


class UpdateToken(Element):
    """Writes the caller's header token into the caller's segment, then our own token into ours.

    Without headers (a role of this process, a peer without identity) the caller's segment stays as the
    caller wrote it. Ours is addressed to the caller; where this process calls on, its token for the next hop
    replaces it there.

    After:  Begin
    Reads:  the headers nsm-client-token and nsm-client-token-expires
    Writes: token and expires of the segments index-1 and index
    Close:  the same, on the connection as it is known
    """

    after = ("Begin", "UpdatePath")

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    def _update(self, call: Call, connection: Connection) -> None:
        path = connection.path
        segments, index = path.path_segments, path.index
        if index > 0 and sends_token(call):
            try:
                token, expires = received_token(call)
            except ValueError as error:
                log.warning("token headers ignored", connection=connection.id, error=str(error))
            else:
                _write(segments[index - 1], token, expires)
        _write(segments[index], *self._tokens.mint(call.peer))

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Update, pass on. Our token in the answer fits what the caller was shown, should we have rotated."""
        self._update(call, request.connection)
        answer = await next.request(call, request)
        index = request.connection.path.index
        if index < len(answer.path.path_segments):
            segment = answer.path.path_segments[index]
            fitting = self._tokens.fit(segment.token, call.peer)
            if fitting is not segment.token:
                segment.token = fitting
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Update, pass on."""
        self._update(call, connection)
        await next.close(call, connection)


def _write(segment: PathSegment, token: str, expires: float) -> None:
    segment.token = token
    set_timestamp(segment.expires, expires)
