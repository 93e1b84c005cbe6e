"""The client (NSC): asks its manager for network services and keeps their wires alive."""

from __future__ import annotations

from nsmesh.core.begin_client import BeginClient
from nsmesh.core.clock import Clock
from nsmesh.core.element import Chain, Element, Handler, chain
from nsmesh.core.journalling import Journal
from nsmesh.core.peering import Dialled, Peers
from nsmesh.core.tokens import TokenSource
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.heal import Heal
from nsmesh.elements.refresh import Refresh
from nsmesh.elements.send_fd import SendFdClient
from nsmesh.elements.update_path import UpdatePath


def client(
    name: str,
    *,
    manager: Handler | str,
    peers: Peers | None,
    tokens: TokenSource,
    heal: Heal | None = None,
    function: tuple[Element, ...] = (),
    checks: tuple[Element, ...] = (),
    dial_timeout: float = 5.0,
    journal: Journal | None = None,
    clock: Clock | None = None,
) -> Chain:
    """Return the client's chain. Its state, one life per connection, is in its ``BeginClient``.

    ``manager`` is a URL, or a manager of this process. ``function`` stands in front of the dial and changes
    what is asked for. ``checks`` are put in front of the stub: policies on
    what comes back. Without ``heal`` the default one re-requests and reselects without a liveness check.
    """
    return chain(
        UpdatePath(name),
        BeginClient(journal, passes_reselects=True),
        Refresh(),
        heal or Heal(tokens=tokens),
        *function,
        Dial(peers, target=manager, timeout=dial_timeout, journal=journal),
        SendFdClient(),
        ClientToken(tokens),
        *checks,
        end=Dialled(),
        name=f"client {name}",
        clock=clock,
    )
