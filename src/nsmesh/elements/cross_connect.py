"""CrossConnectWire: from two agreed mechanisms to one wire in the datapath."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field, replace

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Conflict, Internal, Invalid, NotFound, Refused, TimedOut
from nsmesh.core.life import LIFE, REPLACED, Life
from nsmesh.core.mechanism import NEAR_MAC, MechanismPlugin, by_type, handing, tunnels
from nsmesh.datapath.base import Applied, CrossConnect, Datapath, KernelPort, Port, TunnelPort
from nsmesh.datapath.netns import identity
from nsmesh.datapath.taken import InterfaceTaken
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import INODE_URL
from nsmesh.model.messages import IP, Connection, Mechanism, NetworkServiceRequest
from nsmesh.model.tunnels import VlanPort
from nsmesh.model.wiring import Side, cross_connect, own_mac
from nsmesh.model.wiring_texts import WiringError

log = structlog.get_logger()

Place = tuple[Hashable, str]
"""A network namespace and an interface name in it."""


def namespace_identity(path: str) -> Hashable:
    """Return what tells a namespace from others, whatever path leads to it."""
    try:
        return identity(path)
    except OSError:
        return path  # the driver says what is wrong with it


def _can_be_opened(mechanism: Mechanism) -> bool:
    return not mechanism.parameters.get(INODE_URL, "").startswith("inode:")


async def _never(wire_id: str) -> bool:  # noqa: ARG001 - it may be anybody's
    return False


@dataclass(slots=True)
class _Holder:
    """A connection with the interfaces that it holds, and whose it is: the first segment's name and id."""

    id: str
    origin: tuple[str, str]
    life: Life | None
    places: set[Place] = field(default_factory=set)


class CrossConnectWire(Element):
    """Makes the wire once both sides have agreed, takes it away on Close.

    An interface that another living connection holds is refused. Only the same client may take its own over:
    it was restarted and asks anew, so its old connection is closed first. ``reclaim`` removes a wire that is
    known to belong to no connection, and says whether it did.

    After:  Begin, SelectMechanism
    Reads:  REPLACED, mechanism (upstream), DOWNSTREAM (left by TranslateMechanism behind it), context,
            payload
    Writes: the MAC of the interface here into a tunnel's mechanism in the answer, or the endpoint's socket
            where client and endpoint meet there; NEAR_MAC in the state
    Leaves: the wire; the interfaces held, per connection
    Close:  takes the wire away, then passes on
    """

    after = ("Begin", "SelectMechanism")

    def __init__(
        self,
        datapath: Datapath,
        plugins: Iterable[MechanismPlugin],
        *,
        identify: Callable[[str], Hashable] = namespace_identity,
        reclaim: Callable[[str], Awaitable[bool]] = _never,
    ) -> None:
        self._datapath = datapath
        plugins = list(plugins)
        self._plugins = by_type(plugins)
        self._tunnels = tunnels(plugins)
        self._handing = handing(plugins)
        self._identify = identify
        self._reclaim = reclaim
        self._holders: dict[str, _Holder] = {}
        self._held: dict[Place, _Holder] = {}

    def keeps(self) -> Collection[str]:
        """Return who has interfaces."""
        return {*self._holders, *(holder.id for holder in self._held.values())}

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Let go of the interfaces; Sweep takes the wire away if it is still there."""
        holder = self._holders.get(connection_id)
        if holder is not None:
            self._let_go(holder, keep=set())

    async def resume(self, call: Call, connection: Connection) -> None:
        """Hold its interfaces. The wire is in the kernel, and the next Request of its client looks at it.

        A namespace that came as a descriptor comes again with that Request: until then nothing is held there.
        """
        holder = self._holder(call, connection)
        downstream = call.state.get(DOWNSTREAM)
        if _can_be_opened(connection.mechanism):
            near = self._port(connection, connection.mechanism, Side.CLIENT)
            await self._hold(call, connection, holder, near)
        if downstream is not None and _can_be_opened(downstream):
            far = self._port(connection, downstream, Side.ENDPOINT)
            await self._hold(call, connection, holder, far, far=True)
        self._let_go(holder, keep=set(holder.places))

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Check the client's interface, ask on, then wire."""
        connection = request.connection
        upstream = copy_of(connection.mechanism)
        holder = self._holder(call, connection)
        before = set(holder.places)
        try:
            near = self._port(Connection(id=connection.id), upstream, Side.CLIENT)
            wanted = await self._hold(call, connection, holder, near)
            if self._tunnels:
                numbered = isinstance(near, KernelPort) and near.numbered
                call.state.set(NEAR_MAC, own_mac(connection, Side.CLIENT) if numbered else "")
            answer = await next.request(call, request)
            met = self._hand_on(call, answer)
            wire = None if met else self._wire(call, answer, upstream)
            if wire is not None:
                if formerly := call.get(REPLACED):
                    wire = replace(wire, formerly=formerly)
                wanted |= await self._hold(call, connection, holder, wire.b, far=True)
                applied = await self._apply(wire)
                log.debug("wire applied", connection=wire.id, outcome=applied.outcome)
                self._introduce(answer, wire)
        except BaseException:
            self._let_go(holder, keep=before)
            raise
        self._let_go(holder, keep=wanted)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Take the wire away first: the next hop may be slow, or gone."""
        try:
            await self._datapath.remove(connection.id)
        finally:
            await self.forget(connection.id, call.state)
            await next.close(call, connection)

    async def _apply(self, wire: CrossConnect) -> Applied:
        """Make the wire. Raises InterfaceTaken for the endpoint's name alone: the client chose its own.

        What a dead forwarder made and never agreed is in nobody's way, at either end.
        """
        for left in (True, True, False):
            try:
                return await self._datapath.apply(wire)
            except InterfaceTaken as error:
                if left and error.owner and await self._reclaim(error.owner):
                    continue
                far = wire.b
                if isinstance(far, KernelPort) and (far.netns, far.name) == (error.netns, error.name):
                    raise
                raise Conflict(error.what, remedy=error.remedy) from error
        raise AssertionError  # the last one returns or raises

    def _port(self, connection: Connection, mechanism: Mechanism, side: Side) -> Port | None:
        plugin = self._plugins.get(mechanism.type)
        if plugin is None:
            raise Invalid(
                f"the {side.value}'s mechanism {mechanism.type or 'none'} cannot be wired here",
                remedy=f"use {', '.join(self._plugins)}",
            )
        return plugin.port(connection, mechanism, side)

    def _wire(self, call: Call, answer: Connection, upstream: Mechanism) -> CrossConnect | None:
        endpoint = answer.network_service_endpoint_name or answer.network_service
        downstream = call.state.get(DOWNSTREAM)
        if downstream is None:
            raise Internal(
                f"endpoint {endpoint} agreed to no mechanism, or this chain did not keep it",
                remedy="put a TranslateMechanism behind CrossConnectWire; else look at the endpoint's answer",
            )
        try:
            near = self._port(answer, upstream, Side.CLIENT)
            far = self._port(answer, downstream, Side.ENDPOINT)
            if near is None and far is None:
                return None
            if near is None or far is None:
                raise Refused(
                    f"endpoint {endpoint} answered {downstream.type} to a client with {upstream.type}: "
                    "only one of the two has an interface",
                    remedy="let both use a mechanism with an interface, or both NOOP",
                )
            if isinstance(near, TunnelPort) and isinstance(far, VlanPort):
                raise Refused(
                    f"endpoint {endpoint} gives out a VLAN, and was asked for it by way of another node",
                    remedy="register it at the registry and not by a manager: NSM_CONNECT_TO",
                )
            if isinstance(near, TunnelPort) and isinstance(far, TunnelPort):
                raise NotFound(
                    f"endpoint {endpoint} is not on this node, to which another node sent the Request for it",
                    remedy="ask again: its registration is on its way to another node",
                )
            return cross_connect(answer, near, far)
        except WiringError as error:
            raise Invalid(
                f"endpoint {endpoint} answered what cannot be wired: {error}",
                remedy="correct the addresses and routes that the endpoint gives out",
            ) from error

    def _hand_on(self, call: Call, answer: Connection) -> bool:
        """Say whether client and endpoint meet at the endpoint's socket, which the answer then names."""
        downstream = call.state.get(DOWNSTREAM)
        plugin = self._handing.get(answer.mechanism.type)
        if plugin is None or downstream is None or downstream.type != answer.mechanism.type:
            return False
        return plugin.hand_on(answer.mechanism, downstream)

    def _introduce(self, answer: Connection, wire: CrossConnect) -> None:
        """Tell the node that asked the MAC of the interface on this one, where neighbours are told at all."""
        tunnel = self._tunnels.get(answer.mechanism.type)
        if tunnel is not None and isinstance(wire.b, KernelPort):
            told = wire.payload == IP and wire.b.numbered
            tunnel.introduce(answer.mechanism, Side.ENDPOINT, wire.b.mac if told else "")

    def _holder(self, call: Call, connection: Connection) -> _Holder:
        segments = connection.path.path_segments
        origin = (segments[0].name, segments[0].id) if segments else ("", connection.id)
        holder = self._holders.get(connection.id)
        if holder is None:
            holder = self._holders[connection.id] = _Holder(connection.id, origin, None)
        holder.life = call.state.get(LIFE)
        return holder

    async def _hold(
        self, call: Call, connection: Connection, holder: _Holder, port: Port | None, *, far: bool = False
    ) -> set[Place]:
        if not isinstance(port, KernelPort):
            return set()
        place = (self._identify(port.netns), port.name)
        other = self._held.get(place)
        if other is not None and other is not holder and _is_successor(connection, holder, other):
            await self._replace(call, other)
            other = self._held.get(place)
        if other is not None and other is not holder:
            what = (
                f"interface {port.name} in network namespace {port.netns} is held by connection {other.id} "
                f"of {other.origin[0]}"
            )
            remedy = "ask for another interface name, or close that connection first"
            if far:
                raise InterfaceTaken(what, netns=port.netns, name=port.name, remedy=remedy)
            raise Conflict(what, remedy=remedy)
        self._held[place] = holder
        holder.places.add(place)
        return {place}

    async def _replace(self, call: Call, old: _Holder) -> None:
        log.warning("a restarted client asks anew: close its old connection", connection=old.id)
        assert old.life is not None
        try:
            async with asyncio.timeout(call.remaining()):
                await old.life.close()
        except TimeoutError as error:
            raise TimedOut(f"the old connection {old.id} of the same client did not close in time") from error

    def _let_go(self, holder: _Holder, *, keep: set[Place]) -> None:
        for place in holder.places - keep:
            holder.places.discard(place)
            if self._held.get(place) is holder:
                del self._held[place]
        if not holder.places and self._holders.get(holder.id) is holder:
            del self._holders[holder.id]


def _is_successor(connection: Connection, holder: _Holder, other: _Holder) -> bool:
    """Return whether ``other`` is what the same client has lost, and not a part of this very path."""
    if other.life is None or other.origin != holder.origin:
        return False
    return all(segment.id != other.id for segment in connection.path.path_segments)
