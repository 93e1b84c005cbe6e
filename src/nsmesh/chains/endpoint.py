"""Endpoints (NSE): the end of a path, or a function in its middle; and how they register."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsmesh.chains.onward import owing
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.clock import Clock
from nsmesh.core.element import Chain, Element, Handler, chain
from nsmesh.core.journalling import Journal
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.core.peering import Dialled, Peers
from nsmesh.core.tokens import TokenSource
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.connect import Connect
from nsmesh.elements.dial import Dial
from nsmesh.elements.monitor import Monitor
from nsmesh.elements.offer_mechanisms import OfferMechanisms
from nsmesh.elements.passthrough import Passthrough
from nsmesh.elements.register_heal import RegisterHeal
from nsmesh.elements.register_refresh import RegisterRefresh
from nsmesh.elements.register_retry import RegisterRetry
from nsmesh.elements.registry_receive_fd import RegistryReceiveFdClient
from nsmesh.elements.registry_send_fd import RegistrySendFdClient
from nsmesh.elements.select_mechanism import SelectMechanism
from nsmesh.elements.send_fd import SendFd, SendFdClient
from nsmesh.elements.strays import Strays
from nsmesh.elements.timeout import Timeout
from nsmesh.elements.translate_mechanism import TranslateMechanism
from nsmesh.elements.trim_path import TrimPath
from nsmesh.elements.update_path import UpdatePath
from nsmesh.elements.update_token import UpdateToken
from nsmesh.model.messages import Connection


def endpoint(
    name: str,
    *function: Element,
    mechanisms: Sequence[MechanismPlugin],
    tokens: TokenSource,
    policies: tuple[Element, ...] = (),
    journal: Journal | None = None,
    clock: Clock | None = None,
) -> Chain:
    """Return the chain of an endpoint that ends the path: what it does is ``function``, outermost first."""
    begin = Begin(journal)
    return chain(
        UpdatePath(name, begin=begin),
        begin,
        UpdateToken(tokens),
        *policies,
        Timeout(),
        Monitor(name, tokens),
        SendFd(),
        TrimPath(),
        *function,
        SelectMechanism(mechanisms),
        name=f"endpoint {name}",
        clock=clock,
    )


class PassthroughEndpoint:
    """An endpoint in the middle: ``server`` takes Requests, ``onward`` asks for the rest of the chain.

    ``function`` stands where it sees both mechanisms: the one it serves in the connection, and after the
    answer the one it got, as ``DOWNSTREAM`` in the state.
    """

    def __init__(
        self,
        name: str,
        *function: Element,
        labels: Mapping[str, str],
        manager: Handler | str,
        serves: Sequence[MechanismPlugin],
        asks: Sequence[MechanismPlugin],
        peers: Peers,
        tokens: TokenSource,
        policies: tuple[Element, ...] = (),
        dial_timeout: float = 5.0,
        journal: Journal | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.onward: Chain = chain(
            UpdatePath(name),
            Begin(journal, half_of=f"endpoint {name}"),
            Passthrough(labels),
            Dial(peers, target=manager, timeout=dial_timeout, journal=journal),
            SendFdClient(),
            ClientToken(tokens),
            end=Dialled(),
            name=f"endpoint {name} onward",
            clock=clock,
        )
        begin = Begin(journal)

        async def managers(call: Call, connection: Connection) -> list[str]:  # noqa: ARG001 - there is but one
            return [manager] if isinstance(manager, str) else []

        self.server: Chain = chain(
            UpdatePath(name, begin=begin),
            Strays(name, begin, self.onward, managers, owing(self.onward), tokens, journal),
            begin,
            UpdateToken(tokens),
            *policies,
            Timeout(),
            Monitor(name, tokens),
            SendFd(),
            SelectMechanism(serves),
            *function,
            TranslateMechanism(),
            OfferMechanisms(asks),
            Connect(self.onward),
            name=f"endpoint {name}",
            clock=clock,
        )


def registration(
    name: str,
    *,
    manager: Handler | str,
    peers: Peers,
    tokens: TokenSource,
    finds: bool = False,
    by_manager: bool = True,
    checks: tuple[Element, ...] = (),
    dial_timeout: float = 5.0,
    clock: Clock | None = None,
) -> Chain:
    """Return the chain by which endpoints and forwarders register and stay registered.

    ``finds``: who registers also goes to what it finds, so it takes the sockets that come with answers.
    ``by_manager`` false: ``manager`` is the registry itself, which takes addresses and no sockets.
    """
    return chain(
        Begin(),
        RegisterRetry(),
        RegisterHeal(),
        RegisterRefresh(),
        Dial(peers, target=manager, timeout=dial_timeout),
        *((RegistryReceiveFdClient(),) if finds else ()),
        *((RegistrySendFdClient(),) if by_manager else ()),
        ClientToken(tokens),
        *checks,
        end=Dialled(),
        name=f"registration {name}",
        clock=clock,
    )
