"""Who may see the tokens of a path: those who stand in it.

Monitors need no permission (contract 3.3), so without this anybody of the trust domain could read everybody's
tokens from an event, and speak with them until they end.
"""

from __future__ import annotations

from nsmesh.core.call import Peer
from nsmesh.model.messages import Connection, ConnectionEvent
from nsmesh.security.jws import BadToken
from nsmesh.security.token import TokenReader


def owns(connection: Connection, peer: Peer, reader: TokenReader) -> bool:
    """Whether a segment of the connection's path is the peer's: its token has the peer as subject."""
    if peer.in_process:
        return True
    if not peer.spiffe_id:
        return False
    for segment in connection.path.path_segments:
        try:
            if reader.read(segment.token).subject == peer.spiffe_id:
                return True
        except BadToken:
            continue
    return False


def visible_to(event: ConnectionEvent, peer: Peer, reader: TokenReader) -> ConnectionEvent:
    """Return the event as ``peer`` may see it: without the tokens of paths that it has no segment in.

    The event itself is not changed; it comes back as it is when there is nothing to hide.
    """
    foreign = [key for key, connection in event.connections.items() if not owns(connection, peer, reader)]
    if not foreign:
        return event
    shown = ConnectionEvent()
    shown.CopyFrom(event)
    for key in foreign:
        for segment in shown.connections[key].path.path_segments:
            segment.token = ""
    return shown
