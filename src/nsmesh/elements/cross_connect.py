"""CrossConnectWire: from two agreed mechanisms to one wire in the datapath."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from dataclasses import replace

import structlog

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, State
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Conflict, Internal, Invalid, NotFound, Refused, TimedOut
from nsmesh.core.holders import Holder, Holders, Place, has_lost, origin_of
from nsmesh.core.life import LIFE, REPLACED
from nsmesh.core.mechanism import NEAR_MAC, MechanismPlugin, by_type, handing, tunnels
from nsmesh.datapath.base import Applied, CrossConnect, Datapath, KernelPort, Port, TunnelPort
from nsmesh.datapath.netns import identity
from nsmesh.datapath.taken import InterfaceTaken
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import INODE_URL
from nsmesh.model.messages import IP, Connection, Mechanism, NetworkServiceRequest
from nsmesh.model.tunnels import OutsidePort
from nsmesh.model.wiring import Side, cross_connect, own_mac
from nsmesh.model.wiring_texts import WiringError

log = structlog.get_logger()


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


class CrossConnectWire(Element):
    """Makes the wire once both sides have agreed, takes it away on Close.

    An interface that another living connection holds is refused. Only the same client may take its own over:
    it was restarted, or never heard the answer, and asks anew, so its old connection is closed first.
    ``reclaim`` removes a wire that is known to belong to no connection, and says whether it did.

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
        self._held = Holders()

    def keeps(self) -> Collection[str]:
        """Return who has interfaces."""
        return self._held.ids

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Let go of the interfaces; Sweep takes the wire away if it is still there."""
        self._held.forget(connection_id)

    async def resume(self, call: Call, connection: Connection) -> None:
        """Hold its interfaces. The wire is in the kernel, and the next Request of its client looks at it.

        A namespace that came as a descriptor comes again with that Request: until then nothing is held there.
        """
        holder = self._held.of(connection, call.state.get(LIFE))
        downstream = call.state.get(DOWNSTREAM)
        if _can_be_opened(connection.mechanism):
            near = self._port(connection, connection.mechanism, Side.CLIENT)
            await self._hold(call, connection, holder, near)
        if downstream is not None and _can_be_opened(downstream):
            far = self._port(connection, downstream, Side.ENDPOINT)
            await self._hold(call, connection, holder, far, far=True)
        self._held.let_go(holder, keep=set(holder.places))

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Check the client's interface, ask on, then wire."""
        connection = request.connection
        upstream = copy_of(connection.mechanism)
        holder = self._held.of(connection, call.state.get(LIFE))
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
                applied = await self._apply(call, connection, wire)
                log.debug("wire applied", connection=wire.id, outcome=applied.outcome)
                self._introduce(answer, wire)
        except BaseException:
            self._held.let_go(holder, keep=before)
            raise
        self._held.let_go(holder, keep=wanted)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Take the wire away first: the next hop may be slow, or gone."""
        try:
            await self._datapath.remove(connection.id)
        finally:
            await self.forget(connection.id, call.state)
            await next.close(call, connection)

    async def _apply(self, call: Call, connection: Connection, wire: CrossConnect) -> Applied:
        """Make the wire. Raises InterfaceTaken for the endpoint's name alone: the client chose its own.

        What a dead forwarder made and never agreed is in nobody's way, at either end.
        """
        for left in (True, True, False):
            try:
                return await self._datapath.apply(wire)
            except InterfaceTaken as error:
                if left and error.owner and await self._free(call, connection, error.owner):
                    continue
                far = wire.b
                if isinstance(far, KernelPort) and (far.netns, far.name) == (error.netns, error.name):
                    raise
                raise Conflict(error.what, remedy=error.remedy) from error
        raise AssertionError  # the last one returns or raises

    async def _free(self, call: Call, connection: Connection, owner: str) -> bool:
        """Take away a wire that is nobody's, or that the same client has lost; say whether it was one.

        That of a client whose namespace came as a descriptor is not held after a restart of ours.
        """
        begin = next((one for one in self.companions if isinstance(one, Begin)), None)
        life = begin.life(owner) if begin is not None else None
        known = life.connection if life is not None else None
        if known is None:
            return await self._reclaim(owner)
        lost = Holder(owner, origin_of(known), life)
        if not has_lost(connection, self._held.of(connection, call.state.get(LIFE)), lost):
            return False
        await self._replace(call, lost)
        return True

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
            if isinstance(near, TunnelPort) and isinstance(far, OutsidePort):
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

    async def _hold(
        self, call: Call, connection: Connection, holder: Holder, port: Port | None, *, far: bool = False
    ) -> set[Place]:
        if not isinstance(port, KernelPort):
            return set()
        place = (self._identify(port.netns), port.name)
        other = self._held.other(place, holder)
        if other is not None and has_lost(connection, holder, other):
            await self._replace(call, other)
            other = self._held.other(place, holder)
        if other is not None:
            what = (
                f"interface {port.name} in network namespace {port.netns} is held by connection {other.id} "
                f"of {other.origin[0]}"
            )
            remedy = "ask for another interface name, or close that connection first"
            if far:
                raise InterfaceTaken(what, netns=port.netns, name=port.name, remedy=remedy)
            raise Conflict(what, remedy=remedy)
        self._held.take(place, holder)
        return {place}

    async def _replace(self, call: Call, old: Holder) -> None:
        log.warning("a client asks anew for what it has lost: close its old connection", connection=old.id)
        assert old.life is not None
        try:
            async with asyncio.timeout(call.remaining()):
                await old.life.close()
        except TimeoutError as error:
            raise TimedOut(f"the old connection {old.id} of the same client did not close in time") from error
