"""The client as a role: asks for its network services one after another, and closes them at its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from nsmesh.chains.client import client
from nsmesh.chains.liveness import Liveness, any_of, carrier
from nsmesh.chains.restore import Kept, held_connection
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.settings_nsc import NscSettings
from nsmesh.chains.up_socket import UpSocket
from nsmesh.chains.wanted import PAUSE, Wanted, wanted_services
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain, Element
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.core.heal_looks import Alive, Carries
from nsmesh.datapath import netns
from nsmesh.datapath.echo import Echoes
from nsmesh.dns.asking import PORT
from nsmesh.elements.client_info import ClientInfo
from nsmesh.elements.heal import Heal
from nsmesh.elements.keep_apart import KeepApart
from nsmesh.elements.local_dns import LocalDns
from nsmesh.elements.receive_fd import ReceiveFdClient
from nsmesh.model.messages import MEMIF, VHOST_USER, Connection
from nsmesh.model.resolver_text import is_server
from nsmesh.rpc import address

log = structlog.get_logger()


def serves_names(settings: NscSettings) -> bool:
    """Return whether names of wires are served: in the pod of this process alone, whose loopback it has."""
    return settings.local_dns_server_enabled and bool(settings.resolver_file) and not settings.netns


def local_dns(settings: NscSettings) -> LocalDns | None:
    """Return what serves names of wires, where that is wanted; raises Invalid for where it cannot listen."""
    if not serves_names(settings):
        return None
    where = address.parse(settings.local_dns_server_address)
    if where.unix or where.port != PORT or not is_server(where.host):
        written = settings.local_dns_server_address
        raise Invalid(
            f"NSM_LOCAL_DNS_SERVER_ADDRESS: {written} cannot stand in a resolver file",
            remedy=f"name an address of the loopback and port {PORT}: 127.0.0.1:{PORT}",
        )
    return LocalDns(Path(settings.resolver_file), where.host, where.port)


def _in_the_kernel(alive: Alive) -> Alive:
    """Return ``alive`` for wires that end in the kernel: nobody here can look through a socket's wire."""

    async def looked(connection: Connection) -> bool:
        return connection.mechanism.type in {MEMIF, VHOST_USER} or await alive(connection)

    return looked


def _receiving(wires: Iterable[Wanted]) -> tuple[Element, ...]:
    """Return what takes the descriptors of sockets, where a wire ends in one."""
    return (ReceiveFdClient(),) if any(wire.offer.type == MEMIF for wire in wires) else ()


@asynccontextmanager
async def running_nsc(
    settings: NscSettings,
    runtime: Runtime,
    *,
    alive: Alive | None = None,
    leaves: Callable[[], bool] = lambda: False,
    longest_pause: float = PAUSE,
) -> AsyncIterator[Chain]:
    """Ask for all services in the background while the block runs; close them on leaving.

    ``alive`` takes the place of the look at the wires that the settings ask for. ``leaves`` says at the end
    whether the wires stay, for a successor that goes on with the journal. ``longest_pause``: seconds to which
    the pause between two tries grows.
    """
    wires = [Wanted.of(settings, number, url) for number, url in enumerate(wanted_services(settings))]
    dns, up = local_dns(settings), UpSocket(settings.up_socket)
    carries: Carries | None = None
    if alive is None and settings.liveness_check_enabled:
        limit = settings.liveness_check_timeout
        namespace = settings.netns or netns.of_pid(os.getpid())
        carries = carrier(lambda: settings.netns)
        alive = _in_the_kernel(
            any_of(Echoes(settings.netns, limit=limit), Liveness(lambda: namespace, limit))
        )
    chain = client(
        settings.name,
        manager=settings.connect_to,
        peers=runtime.peers,
        tokens=runtime.tokens,
        heal=Heal(
            alive,
            carries=carries,
            tokens=runtime.tokens,
            interval=settings.liveness_check_interval,
            limit=settings.liveness_check_timeout + 0.1,
            count=settings.liveness_check_count,
        ),
        function=(
            ClientInfo(settings.place),
            KeepApart(),
            *((dns,) if dns else ()),
            *_receiving(wires),
        ),
        checks=runtime.checks(),
        dial_timeout=settings.dial_timeout,
        journal=runtime.journal,
        clock=runtime.clock,
    )
    async with chain.running():
        work = chain.scope.spawn(
            _Asking(settings, chain, alive, longest_pause, up).ask_all(wires), name="requests"
        )
        try:
            yield chain
        finally:
            work.cancel()
            await asyncio.wait([work])
            up.close()
            if not leaves():
                await _close(settings, chain, wires)
                if dns:
                    dns.restore()


class _Asking:
    """Asks for wires, one after another, each until it is there."""

    def __init__(
        self, settings: NscSettings, chain: Chain, alive: Alive | None, longest_pause: float, up: UpSocket
    ) -> None:
        self._settings = settings
        self._up = up
        self._longest_pause = longest_pause
        self._chain = chain
        self._alive = alive
        self._told_of_names = serves_names(settings) or not settings.local_dns_server_enabled

    async def ask_all(self, wires: Sequence[Wanted]) -> None:
        for wire in wires:
            await self._ask(wire)
        log.info("all wires are up", wires=len(wires))
        self._up.listen()

    async def _ask(self, wire: Wanted) -> None:
        kept, pause = Kept(self._alive), PAUSE
        while True:
            held, reselect = None, False
            call = Call(peer=Peer(in_process=True)).within(self._settings.request_timeout)
            try:
                held = await held_connection(self._chain, call, wire.id, wire.offer.type)
                reselect = held is not None and await kept.is_over(held, self._now())
                call = call.within(self._settings.request_timeout)
                request = wire.request(self._settings.name, held, reselect=reselect)
                connection = await self._chain.request(call, request)
            except MeshError as error:
                if held is not None:
                    kept.refused(held, error, self._now())
                log.warning("request failed", connection=wire.id, error=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, self._longest_pause)
            else:
                self._tell(connection, restored=held is not None and not reselect)
                return

    def _now(self) -> float:
        return self._chain.scope.clock.monotonic()

    def _tell(self, connection: Connection, *, restored: bool) -> None:
        context = connection.context
        log.info(
            "wire up",
            connection=connection.id,
            endpoint=connection.network_service_endpoint_name,
            addresses=list(context.ip_context.src_ip_addrs),
            restored=restored,
        )
        if context.dns_context.configs and not self._told_of_names:
            self._told_of_names = True
            log.warning(
                "the endpoint names DNS servers, and they are not put to use: this client serves no names",
                remedy="set NSM_RESOLVER_FILE to the resolver file of the pod (without NSM_NETNS), or "
                "NSM_LOCAL_DNS_SERVER_ENABLED=false to say so no more",
            )


async def _close(settings: NscSettings, chain: Chain, wires: Sequence[Wanted]) -> None:
    for wire in wires:
        connection = Connection(id=wire.id)
        connection.path.path_segments.add(name=settings.name, id=wire.id)
        try:
            await chain.close(Call(peer=Peer(in_process=True)).within(settings.request_timeout), connection)
        except MeshError as error:
            log.warning("close failed", connection=wire.id, error=str(error))
