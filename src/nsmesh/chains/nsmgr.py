"""The manager (nsmgr) of a node: finds forwarders, checks, watches; and its view of the registry."""

from __future__ import annotations

from collections.abc import Mapping

from nsmesh.chains.onward import onward, owing
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.clock import Clock
from nsmesh.core.element import Chain, Element, Handler, chain
from nsmesh.core.journalling import Journal
from nsmesh.core.lookup import Lookup
from nsmesh.core.peering import Dialled, Peers
from nsmesh.core.tokens import TokenSource
from nsmesh.elements.client_info import ClientInfo
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.connect import Connect
from nsmesh.elements.dial import Dial
from nsmesh.elements.discover_forwarder import DiscoverForwarder
from nsmesh.elements.excluded_prefixes import ExcludedPrefixes
from nsmesh.elements.expire import Expire
from nsmesh.elements.local_bypass import LocalBypass
from nsmesh.elements.mirror import Mirror
from nsmesh.elements.monitor import Monitor
from nsmesh.elements.network_service_monitor import NetworkServiceMonitor
from nsmesh.elements.quota import Quota
from nsmesh.elements.receive_fd import ReceiveFd
from nsmesh.elements.registry_receive_fd import RegistryReceiveFd
from nsmesh.elements.registry_send_fd import RegistrySendFd
from nsmesh.elements.send_fd import SendFd
from nsmesh.elements.strays import Strays
from nsmesh.elements.timeout import Timeout
from nsmesh.elements.twins import Twins
from nsmesh.elements.update_path import UpdatePath
from nsmesh.elements.update_token import UpdateToken
from nsmesh.model.messages import FORWARDER_SERVICE, Connection


class Nsmgr:
    """``server`` takes Requests, ``onward`` asks a forwarder, ``registry`` is what the node sees of it.

    ``quota``: connections that one identity may have here; 0 for any number. ``outcomes``: what tells people
    of Requests, in front of all that has a say in them.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        registry: Handler | str,
        peers: Peers,
        tokens: TokenSource,
        labels: Mapping[str, str] | None = None,
        excluded_prefixes_file: str = "",
        policies: tuple[Element, ...] = (),
        registry_front: tuple[Element, ...] = (),
        registry_checks: tuple[Element, ...] = (),
        forwarder_service: str = FORWARDER_SERVICE,
        quota: int = 0,
        outcomes: tuple[Element, ...] = (),
        dial_timeout: float = 0.75,
        journal: Journal | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.url = url
        self.begin = Begin(journal, passes_reselects=True)
        info = dict(labels or {})
        bypass, mirror = LocalBypass(url, journal), Mirror()
        self.registry: Chain = chain(
            *registry_front,
            Begin(),
            ClientInfo(info),
            Expire(),
            RegistrySendFd(),
            RegistryReceiveFd(),
            Twins(),
            bypass,
            mirror,
            Dial(peers, target=registry, timeout=dial_timeout),
            ClientToken(tokens),
            *registry_checks,
            end=Dialled(),
            name=f"nsmgr {name} registry",
            clock=clock,
        )

        def version() -> int | None:
            mirrored = mirror.version()
            return None if mirrored is None else mirrored + bypass.changes

        lookup = Lookup(self.registry, version)

        async def successor(forwarder: str) -> str:
            now, call = self.server.scope.clock.now(), Call(peer=Peer(in_process=True)).within(dial_timeout)
            found = await lookup.endpoints(call, forwarder_service, now, url=url)
            return next((entry.url for entry in found if entry.name == forwarder), "")

        async def forwarders(call: Call, connection: Connection) -> list[str]:  # noqa: ARG001 - all of them
            now = self.server.scope.clock.now()
            found = await lookup.endpoints(call, forwarder_service, now, url=url)
            return [entry.url for entry in found]

        self.onward: Chain = onward(
            name,
            role="nsmgr",
            peers=peers,
            tokens=tokens,
            dial_timeout=dial_timeout,
            journal=journal,
            clock=clock,
            successor=successor,
            passes_reselects=True,
        )
        self.server: Chain = chain(
            UpdatePath(name, begin=self.begin),
            Strays(name, self.begin, self.onward, forwarders, owing(self.onward), tokens, journal),
            *outcomes,
            self.begin,
            UpdateToken(tokens),
            *policies,
            Quota(quota),
            Timeout(),
            Monitor(name, tokens),
            SendFd(),
            ReceiveFd(),
            ClientInfo(info),
            DiscoverForwarder(lookup, url, forwarder_service),
            NetworkServiceMonitor(self.registry),
            ExcludedPrefixes(excluded_prefixes_file),
            Connect(self.onward),
            name=f"nsmgr {name}",
            clock=clock,
        )
