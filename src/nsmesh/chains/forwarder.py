"""The forwarder: makes the wires of a node, between whoever asks and whoever answers."""

from __future__ import annotations

from collections.abc import Sequence

from nsmesh.chains.onward import onward, owing
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.clock import Clock
from nsmesh.core.element import Chain, Element, Handler, chain
from nsmesh.core.journalling import Journal
from nsmesh.core.lookup import Lookup
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.core.node_watching import Echoes
from nsmesh.core.paths import Paths
from nsmesh.core.peering import Peers, part_with
from nsmesh.core.tokens import TokenSource
from nsmesh.datapath.base import Datapath
from nsmesh.elements.announce import Announce
from nsmesh.elements.change_tunnel import ChangeTunnel
from nsmesh.elements.connect import Connect
from nsmesh.elements.cross_connect import CrossConnectWire
from nsmesh.elements.discover_endpoint import DiscoverEndpoint
from nsmesh.elements.fit_underlay import FitUnderlay
from nsmesh.elements.keep_wire import KeepWire
from nsmesh.elements.mirror import Mirror
from nsmesh.elements.monitor import Monitor
from nsmesh.elements.next_mechanism import NextMechanism
from nsmesh.elements.offer_mechanisms import OfferMechanisms
from nsmesh.elements.receive_fd import ReceiveFd
from nsmesh.elements.round_robin import RoundRobin
from nsmesh.elements.select_mechanism import SelectMechanism
from nsmesh.elements.send_fd import SendFd
from nsmesh.elements.strays import Strays
from nsmesh.elements.sweep import Sweep
from nsmesh.elements.timeout import Timeout
from nsmesh.elements.translate_mechanism import TranslateMechanism
from nsmesh.elements.update_path import UpdatePath
from nsmesh.elements.update_token import UpdateToken
from nsmesh.elements.uplink import Uplink
from nsmesh.elements.watch_endpoints import WatchEndpoints
from nsmesh.elements.watch_nodes import WatchNodes
from nsmesh.model.fileurl import is_passing
from nsmesh.model.messages import Connection


class Forwarder:
    """``server`` takes Requests, ``onward`` asks the endpoint, ``registry`` mirrors what its manager has.

    ``lifetime``: seconds that a wire lives at most without a refresh, which is the life of ``tokens``.
    ``paths``: what fits to other nodes, where that shall be found out. ``echoes`` reach other nodes: one that
    is gone is noticed within four times ``watch_interval`` (seconds).
    """

    def __init__(
        self,
        name: str,
        *,
        registry: Handler,
        datapath: Datapath,
        mechanisms: Sequence[MechanismPlugin],
        peers: Peers,
        tokens: TokenSource,
        policies: tuple[Element, ...] = (),
        paths: Paths | None = None,
        echoes: Echoes | None = None,
        watch_interval: float = 0.036,
        dial_timeout: float = 0.75,
        lifetime: float = 600.0,
        journal: Journal | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.begin = Begin(journal)
        mirror = Mirror()
        self.registry: Chain = chain(mirror, end=registry, name=f"forwarder {name} registry", clock=clock)
        lookup = Lookup(self.registry, mirror.version)

        async def successor(endpoint: str) -> str:
            now, call = self.server.scope.clock.now(), Call(peer=Peer(in_process=True)).within(dial_timeout)
            found = await lookup.named(call, endpoint, now)
            sockets = (entry.url for entry in found if entry.name == endpoint and is_passing(entry.url))
            return next(sockets, "")  # any other URL leads where it always did

        async def candidates(call: Call, connection: Connection) -> list[str]:
            now, named = self.server.scope.clock.now(), connection.network_service_endpoint_name
            found = await (
                lookup.named(call, named, now)
                if named
                else lookup.endpoints(call, connection.network_service, now)
            )
            return sorted({entry.url for entry in found if not named or entry.name == named})

        self.onward: Chain = onward(
            name,
            role="forwarder",
            peers=peers,
            tokens=tokens,
            dial_timeout=dial_timeout,
            journal=journal,
            clock=clock,
            successor=successor,
        )
        monitor = Monitor(name, tokens)

        def part(url: str) -> None:
            part_with(peers, url)

        def silent(url: str) -> bool:
            return nodes.is_silent(url) or endpoints.is_silent(url)

        nodes = WatchNodes(echoes, monitor.tell, interval=watch_interval, part=part)
        endpoints = WatchEndpoints(datapath, monitor.tell, part=part)
        sweep = Sweep(datapath, self.begin, lifetime, journal)
        self.server: Chain = chain(
            UpdatePath(name, begin=self.begin),
            Strays(
                name, self.begin, self.onward, candidates, owing(self.onward), tokens, journal, sweep.remove
            ),
            self.begin,
            UpdateToken(tokens),
            *policies,
            Timeout(),
            monitor,
            KeepWire(datapath, self.begin, monitor.tell),
            nodes,
            endpoints,
            sweep,
            SendFd(),
            ReceiveFd(),
            DiscoverEndpoint(lookup, silent),
            RoundRobin(silent),
            FitUnderlay(mechanisms, paths),
            ChangeTunnel(mechanisms),
            NextMechanism(mechanisms),
            SelectMechanism(mechanisms),
            Announce(datapath),
            CrossConnectWire(datapath, mechanisms, reclaim=sweep.reclaim),
            TranslateMechanism(),
            OfferMechanisms(mechanisms),
            Uplink(mechanisms),
            Connect(self.onward),
            name=f"forwarder {name}",
            clock=clock,
        )
