"""The registrar: asks a manager's registry once, for a person or a program, and holds nothing."""

from __future__ import annotations

from nsmesh.core.begin import Begin
from nsmesh.core.clock import Clock
from nsmesh.core.element import Chain, Element, Handler, chain
from nsmesh.core.peering import Dialled, Peers
from nsmesh.core.tokens import TokenSource
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial


def registrar(
    name: str,
    *,
    manager: Handler | str,
    peers: Peers,
    tokens: TokenSource,
    checks: tuple[Element, ...] = (),
    dial_timeout: float = 5.0,
    clock: Clock | None = None,
) -> Chain:
    """Return a chain that registers, finds and unregisters, once each: nothing is tried or sent again.

    It takes ``monitor`` as well, so it is all that a reader of a mesh needs. ``checks`` stand behind Dial.
    """
    return chain(
        Begin(),
        Dial(peers, target=manager, timeout=dial_timeout),
        ClientToken(tokens),
        *checks,
        end=Dialled(),
        name=f"registrar {name}",
        clock=clock,
    )
