"""A datapath in memory: a graph of interfaces and wires, for meshes without a kernel and for tests.

It keeps the same promises as the drivers do, and can be told to fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from nsmesh.core.errors import MeshError, NotFound
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort, TunnelPort, TunnelTaken
from nsmesh.datapath.netns import path_of
from nsmesh.datapath.packed import mac_text
from nsmesh.datapath.taken import InterfaceTaken
from nsmesh.datapath.wirestate import check_wire, desired_end

Hook = Callable[[str, str], Awaitable[None]]
"""Called with verb and wire id before a verb acts: may wait (to widen a race) or raise."""


@dataclass(frozen=True, slots=True)
class FakeInterface:
    """One interface of a :class:`FakeKernel`."""

    wire_id: str
    netns: str
    port: KernelPort
    index: int
    mac: str


@dataclass(slots=True)
class FakeKernel:
    """What outlives a driver: namespaces and interfaces. Give one to several drivers to act out a restart.

    ``namespaces``: those that exist, by path; None means that any path does.
    """

    namespaces: set[str] | None = None
    interfaces: dict[tuple[str, str], FakeInterface] = field(default_factory=dict)
    changes: int = 0
    """How often the kernel's state was changed."""
    made: int = 0
    """How many interfaces were ever made; indexes and MACs come from it."""
    tunnels: dict[str, TunnelPort] = field(default_factory=dict)
    """Where wires go on to another node, by wire id."""
    _places: dict[tuple[object, ...], str] = field(default_factory=dict)
    _ends: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def put(self, interface: FakeInterface) -> None:
        """Make an interface, or change the one that has its name; ends of a wire come in the order a, b."""
        key = interface.netns, interface.port.name
        if key not in self.interfaces:
            self._ends.setdefault(interface.wire_id, []).append(key)
        self.interfaces[key] = interface
        self.changes += 1

    def put_tunnel(self, wire_id: str, tunnel: TunnelPort) -> None:
        """Have a wire go on to another node, or change where to."""
        self._drop_tunnel(wire_id)
        self.tunnels[wire_id] = tunnel
        self._places[tunnel.place] = wire_id

    def holder(self, place: tuple[object, ...]) -> str:
        """Return the wire whose tunnel has a place of the node, or nothing."""
        return self._places.get(place, "")

    def _drop_tunnel(self, wire_id: str) -> None:
        tunnel = self.tunnels.pop(wire_id, None)
        if tunnel is not None and self._places.get(tunnel.place) == wire_id:
            del self._places[tunnel.place]

    def wire(self, wire_id: str) -> tuple[FakeInterface, FakeInterface] | None:
        """Return both ends of a wire in the order a, b, or None where not both are here."""
        ends = self.ends(wire_id)
        return (ends[0], ends[1]) if len(ends) == 2 else None

    def ends(self, wire_id: str) -> list[FakeInterface]:
        """Return the ends of a wire that are here, in the order a, b."""
        return [self.interfaces[key] for key in self._ends.get(wire_id, ())]

    def wires(self) -> dict[str, tuple[FakeInterface, FakeInterface]]:
        """Return both ends of each wire that has both here, by its id, in the order a, b."""
        return {wire_id: both for wire_id in self._ends if (both := self.wire(wire_id)) is not None}

    def peer(self, netns: str, name: str) -> FakeInterface | None:
        """Return the interface at the other end of an interface's wire, or None where there is none."""
        here = self.interfaces.get((netns, name))
        if here is None:
            return None
        both = self.wire(here.wire_id)
        if both is None:
            return None  # it is on another node
        return both[1] if both[0] == here else both[0]

    def linked(self, netns: str, other: str) -> bool:
        """Whether some wire joins two namespaces directly."""
        return any({a.netns, b.netns} == {netns, other} for a, b in self.wires().values())

    def delete_wire(self, wire_id: str) -> None:
        """Take both ends of a wire away, as somebody else might."""
        self._drop_tunnel(wire_id)
        for key in self._ends.pop(wire_id, ()):
            del self.interfaces[key]
            self.changes += 1

    def delete_netns(self, netns: str) -> None:
        """Let a namespace vanish: the wires that end there vanish with it."""
        if self.namespaces is not None:
            self.namespaces.discard(netns)
        for wire_id in list(self._ends):
            if any(end.netns == netns for end in self.ends(wire_id)):
                self.delete_wire(wire_id)


class FakeDatapath:
    """Implements :class:`nsmesh.datapath.base.Datapath` on a :class:`FakeKernel`.

    ``calls`` counts the verbs; ``before`` is a hook; :meth:`fail` makes the next calls of a verb raise.
    """

    def __init__(self, kernel: FakeKernel | None = None, *, name: str = "fake") -> None:
        self.name = name
        self.kernel = kernel or FakeKernel()
        self.calls: Counter[str] = Counter()
        self.before: Hook | None = None
        self.closed = False
        self._faults: dict[str, list[MeshError]] = {}
        self._applied: dict[str, CrossConnect] = {}
        self._tell: Callable[[str], None] = lambda _: None
        self.silenced: set[str] = set()
        self.announced: list[str] = []

    def fail(self, verb: str, error: MeshError, *, times: int = 1) -> None:
        """Have the next ``times`` calls of ``verb`` (``apply``, ``remove``, ``has``, ``sweep``) raise."""
        self._faults.setdefault(verb, []).extend([error] * times)

    async def _enter(self, verb: str, wire_id: str = "") -> None:
        self.calls[verb] += 1
        if self.before is not None:
            await self.before(verb, wire_id)
        if faults := self._faults.get(verb):
            raise faults.pop(0)

    async def apply(self, wire: CrossConnect) -> Applied:
        """See :meth:`Datapath.apply`."""
        await self._enter("apply", wire.id)
        check_wire(wire)
        ports = wire.interfaces
        keys = [(path_of(port.netns), port.name) for port in ports]
        self._take_over(wire, keys)
        for port, (netns, _) in zip(ports, keys, strict=True):
            desired_end(port, 1)
            if self.kernel.namespaces is not None and netns not in self.kernel.namespaces:
                raise NotFound(f"the network namespace {netns} is not there", remedy="ask again")
        for netns, name in keys:
            holder = self.kernel.interfaces.get((netns, name))
            if holder is not None and holder.wire_id != wire.id:
                raise InterfaceTaken(
                    f"an interface {name} exists in {netns} already and belongs to {holder.wire_id}",
                    netns=netns,
                    name=name,
                    remedy=f"ask for another interface name than {name}",
                    owner=holder.wire_id,
                )
        self._check_tunnel(wire)
        present = self.kernel.ends(wire.id)
        same_tunnel = self.kernel.tunnels.get(wire.id) == wire.tunnel
        if present and same_tunnel and [(end.netns, end.port.name) for end in present] == keys:
            outcome, macs = self._change(present, ports)
        else:
            self.kernel.delete_wire(wire.id)
            outcome = "changed" if present else "created"
            macs = [self._make(wire.id, port, key[0]).mac for port, key in zip(ports, keys, strict=True)]
            if wire.tunnel is not None:
                self.kernel.put_tunnel(wire.id, wire.tunnel)
        self._applied[wire.id] = wire
        here = iter(macs)
        a, b = (next(here) if isinstance(port, KernelPort) else "" for port in (wire.a, wire.b))
        return Applied(outcome, a, b)

    def _take_over(self, wire: CrossConnect, keys: Sequence[tuple[str, str]]) -> None:
        """Make a standing wire of a replaced forwarder this one, where it is the very same."""
        old = self.kernel.ends(wire.formerly) if wire.formerly else []
        same_tunnel = self.kernel.tunnels.get(wire.formerly) == wire.tunnel
        if old and same_tunnel and [(end.netns, end.port.name) for end in old] == keys:
            self.kernel.delete_wire(wire.formerly)
            for end in old:
                self.kernel.put(replace(end, wire_id=wire.id))
            if wire.tunnel is not None:
                self.kernel.put_tunnel(wire.id, wire.tunnel)

    def _check_tunnel(self, wire: CrossConnect) -> None:
        if wire.tunnel is None or not wire.tunnel.place:
            return
        wanted = wire.tunnel.place
        if (other := self.kernel.holder(wanted)) and other != wire.id:
            raise TunnelTaken(f"the tunnel {wanted} belongs to {other}")

    def _make(self, wire_id: str, port: KernelPort, netns: str) -> FakeInterface:
        self.kernel.made += 1
        number = self.kernel.made
        mac = port.mac or mac_text(b"\x02\xfa" + number.to_bytes(4, "big"))
        interface = FakeInterface(wire_id, netns, port, number, mac)
        self.kernel.put(interface)
        return interface

    def _change(self, present: Sequence[FakeInterface], ports: Sequence[KernelPort]) -> tuple[str, list[str]]:
        macs = [port.mac or end.mac for end, port in zip(present, ports, strict=True)]
        outcome = "unchanged"
        for end, port, mac in zip(present, ports, macs, strict=True):
            if (end.port, end.mac) != (port, mac):
                outcome = "changed"
                self.kernel.put(FakeInterface(end.wire_id, end.netns, port, end.index, mac))
        return outcome, macs

    def watch(self, tell: Callable[[str], None]) -> None:
        """See :meth:`Watched.watch`; :meth:`lose` tells."""
        self._tell = tell

    def lose(self, wire_id: str) -> None:
        """Take a wire away, as somebody else might, and tell of it."""
        self.kernel.delete_wire(wire_id)
        self._tell(wire_id)

    async def silence(self, wire_ids: Iterable[str]) -> None:
        """See :meth:`Watched.silence`."""
        self.silenced.update(wire_ids)

    def announce(self, wire_id: str) -> None:
        """See :meth:`nsmesh.datapath.base.Announcing.announce`; kept in ``announced``."""
        self.announced.append(wire_id)

    async def restore(self, wire_id: str) -> Applied | None:
        """See :meth:`Watched.restore`."""
        wire = self._applied.get(wire_id)
        return None if wire is None else await self.apply(wire)

    async def remove(self, wire_id: str) -> None:
        """See :meth:`Datapath.remove`."""
        await self._enter("remove", wire_id)
        self._applied.pop(wire_id, None)
        self.kernel.delete_wire(wire_id)

    def refused(self) -> dict[str, dict[str, int]]:
        """See :meth:`Datapath.refused`: no frame ever passes here, and so none is refused."""
        return {}

    async def has(self) -> list[Existing]:
        """See :meth:`Datapath.has`."""
        await self._enter("has")
        return [
            Existing(end.wire_id, end.netns, end.port.name, end.index, up=True)
            for end in self.kernel.interfaces.values()
        ]

    async def tidy(self) -> int:
        """See :meth:`Datapath.tidy`: an interface is made with its owner here."""
        await self._enter("tidy")
        return 0

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """See :meth:`Datapath.sweep`."""
        await self._enter("sweep")
        kept = set(owned)
        gone = [
            Existing(end.wire_id, end.netns, end.port.name, end.index, up=True)
            for end in self.kernel.interfaces.values()
            if end.wire_id not in kept
        ]
        for wire_id in {existing.id for existing in gone}:
            self.kernel.delete_wire(wire_id)
        return gone

    async def aclose(self) -> None:
        """See :meth:`Datapath.aclose`."""
        self.closed = True
