"""The port to the datapath: desired wires in, what exists out. Drivers are idempotent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from nsmesh.core.errors import Conflict, Refused
from nsmesh.model.tunnels import VxlanPort
from nsmesh.model.wire import CrossConnect, KernelPort, Neighbour, PolicyRule, Port, Route, TunnelPort

__all__ = [
    "Applied",
    "CrossConnect",
    "Datapath",
    "Existing",
    "KernelPort",
    "Neighbour",
    "PolicyRule",
    "Port",
    "Route",
    "TunnelPort",
    "TunnelRefused",
    "TunnelTaken",
    "VxlanPort",
    "Watched",
]


class TunnelTaken(Conflict):
    """Another wire of this node has that tunnel (VXLAN: VNI and UDP port): the two nodes choose another."""


class TunnelRefused(Refused):
    """This node's kernel would not make the tunnel: the two nodes try the next mechanism, if there is one."""


@dataclass(frozen=True, slots=True)
class Existing:
    """One interface that the driver finds in the kernel and that carries an owner's mark."""

    id: str
    netns: str
    name: str
    index: int
    up: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """What an ``apply`` did: ``created``, ``changed`` or ``unchanged``; names and MACs of both ends."""

    outcome: str
    a_mac: str = ""
    b_mac: str = ""
    details: tuple[str, ...] = field(default=())


class Datapath(Protocol):
    """A driver. All methods raise :class:`nsmesh.core.errors.MeshError` with what, where and what to do."""

    name: str

    async def apply(self, wire: CrossConnect) -> Applied:
        """Make the kernel as ``wire`` says. A failed apply of a new wire leaves nothing behind."""
        ...

    async def remove(self, wire_id: str) -> None:
        """Take a wire away; one that is not there is gone already."""
        ...

    def refused(self) -> Mapping[str, Mapping[str, int]]:
        """Say what wires of this driver have refused since they were made, since their payload is another.

        Frames by what they were, by wire id; wires that have refused nothing are left out.
        """
        ...

    async def has(self) -> list[Existing]:
        """Say what exists and is marked as this driver's own, in the namespaces that it has worked in."""
        ...

    async def tidy(self) -> int:
        """Remove what an earlier process of this driver had begun and not marked, or closed and not deleted.

        It has no owner, so :meth:`has` does not tell of it. Returns how much it was.
        """
        ...

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """Remove what is marked as the driver's own and belongs to no id of ``owned``; return it."""
        ...

    async def aclose(self) -> None:
        """Finish deletions that are under way and release what the driver holds; wires stay."""
        ...


@runtime_checkable
class Watched(Protocol):
    """What a driver has besides that hears what others do to its wires."""

    def watch(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called with the id of a wire that may have lost an end, or whose end is down.

        Only what somebody else did is told. Called once, in the running loop.
        """
        ...

    async def restore(self, wire_id: str) -> Applied | None:
        """Make a wire as it was applied last, whatever was done to it; None where it is not known.

        Raises NotFound where a namespace of it is gone, Refused where its endpoint's end was set down.
        """
        ...

    async def silence(self, wire_ids: Iterable[str]) -> None:
        """Set the endpoint's ends of wires down: what is behind them is dead, whatever it answers.

        What becomes of such a wire is not told any more, until it is applied again.
        """
        ...


@runtime_checkable
class Announcing(Protocol):
    """What a driver has besides that can tell neighbours where addresses are."""

    def announce(self, wire_id: str) -> None:
        """Announce the addresses of a wire's ends on this node, where it carries frames.

        To be called in the loop; a wire that is not known is announced by nobody.
        """
        ...
