"""The client half of whoever stands in the middle of a node: from a decision to the next process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nsmesh.core.begin import Begin
from nsmesh.core.clock import Clock
from nsmesh.core.element import Chain, chain
from nsmesh.core.journalling import Journal
from nsmesh.core.peering import Dialled, Peers
from nsmesh.core.tokens import TokenSource
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.hold_socket import HoldSocket
from nsmesh.elements.receive_fd import ReceiveFdClient
from nsmesh.elements.send_fd import SendFdClient
from nsmesh.elements.update_path import UpdatePath
from nsmesh.model.messages import Connection


def owing(client: Chain) -> Callable[[str, Connection], None]:
    """Return what has a connection closed at a URL, by a client half, however long that takes."""
    return next(one for one in client.elements if isinstance(one, Dial)).unclosed.owe


def onward(
    name: str,
    *,
    role: str,
    peers: Peers,
    tokens: TokenSource,
    dial_timeout: float,
    journal: Journal | None,
    clock: Clock | None,
    successor: Callable[[str], Awaitable[str]] | None = None,
    passes_reselects: bool = False,
) -> Chain:
    """Return the chain by which a manager or forwarder goes on to where ``TARGET`` says.

    ``successor``: where a next hop is now, by its name. ``passes_reselects``: see
    :class:`nsmesh.core.begin.Begin`.
    """
    return chain(
        UpdatePath(name),
        Begin(journal, half_of=f"{role} {name}", passes_reselects=passes_reselects),
        HoldSocket(),
        ReceiveFdClient(),
        Dial(peers, timeout=dial_timeout, journal=journal, successor=successor),
        SendFdClient(),
        ClientToken(tokens),
        end=Dialled(),
        name=f"{role} {name} onward",
        clock=clock,
    )
