"""The driver ``linux`` with wires onto VLANs of this node's interfaces.

The pod has one end of a veth pair. The other end is in the node, a port of the VLAN's bridge: all wires of a
VLAN, on this node and on others, and what is outside the mesh are one Ethernet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace

from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.datapath import vlan_domain
from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.base import Applied, CrossConnect, Existing, KernelPort, TunnelRefused
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Netlink
from nsmesh.datapath.rtread import read_link
from nsmesh.datapath.segments import SegmentDatapath
from nsmesh.datapath.vlan_domain import Domain
from nsmesh.model.tunnels import VlanPort


def name_of(wire_id: str) -> str:
    """Return the name in the node of the end of a wire that is a port of a VLAN's bridge."""
    return f"nsml{hashlib.sha256(wire_id.encode()).hexdigest()[:10]}"


def mtu_of(name: str) -> int | None:
    """Return the MTU of an interface of the calling thread's namespace, None without it; raises MeshError."""
    try:
        with Netlink() as netlink:
            link = read_link(netlink, name=name)
    except OSError as error:
        raise explain(error.errno or 0, f"cannot look at the interface {name}") from error
    return None if link is None else link.mtu


def interface_mtu(name: str) -> int:
    """Return the MTU of an interface of the calling thread's namespace; raises Unavailable without it."""
    mtu = mtu_of(name)
    if mtu is None:
        raise Unavailable(
            f"this node has no interface {name}, which is to lead to VLANs",
            remedy="correct the forwarder's device selector file, or add the interface to the node",
        )
    return mtu


class VlanDatapath(SegmentDatapath):
    """See :class:`SegmentDatapath`; wires may end in VLANs of the interfaces of ``node``.

    ``kernel_tags`` false does without the kernel's own VLAN devices, where it has them.
    """

    def __init__(
        self,
        *,
        owner: str = "",
        namespaces: Callable[[], Iterable[str]] = tuple,
        node: str = "",
        vxlan_gro: bool = True,
        kernel_tags: bool = True,
    ) -> None:
        self._kernel_tags = kernel_tags
        self._domains: dict[str, tuple[VlanPort, Domain]] = {}
        super().__init__(owner=owner, namespaces=namespaces, node=node, vxlan_gro=vxlan_gro)

    async def apply(self, wire: CrossConnect) -> Applied:
        """See :meth:`Datapath.apply`."""
        port = wire.tunnel
        if not isinstance(port, VlanPort):
            applied = await super().apply(wire)
            self._leave(wire.id)
            return applied
        pod = wire.interfaces[0]
        near = KernelPort(self._home, name_of(wire.id), mtu=pod.mtu, numbered=False)
        ends = (pod, near) if wire.a is pod else (near, pod)
        applied = await super().apply(replace(wire, a=ends[0], b=ends[1]))
        try:
            changed = self._enter(wire.id, port)
        except (MeshError, OSError) as error:
            if applied.outcome == "created":
                await self.remove(wire.id)
                self._drop_empty()
            raise _refused(wire.id, port, error) from error
        outcome = "changed" if changed and applied.outcome == "unchanged" else applied.outcome
        macs = (applied.a_mac, "") if wire.a is pod else ("", applied.b_mac)
        return Applied(outcome, *macs, details=applied.details)

    async def restore(self, wire_id: str) -> Applied | None:
        """See :meth:`Watched.restore`; the wire is on its VLAN again."""
        applied = await super().restore(wire_id)
        entered = self._domains.get(wire_id)
        if applied is not None and entered is not None:
            try:
                self._enter(wire_id, entered[0])
            except (MeshError, OSError) as error:
                raise _refused(wire_id, entered[0], error) from error
        return applied

    async def remove(self, wire_id: str) -> None:
        """See :meth:`Datapath.remove`. A VLAN that no wire uses any more goes too."""
        looks = wire_id in self._domains or wire_id not in self._records
        await super().remove(wire_id)
        self._domains.pop(wire_id, None)
        if looks:
            self._drop_empty()

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """See :meth:`Datapath.sweep`."""
        kept = set(owned)
        gone = await super().sweep(kept)
        self._domains = {wire: entered for wire, entered in self._domains.items() if wire in kept}
        self._drop_empty()
        await self.drain()
        return gone

    async def aclose(self) -> None:
        """See :meth:`Datapath.aclose`."""
        if not self._doors.closed:
            self._drop_empty()
        await super().aclose()

    def _enter(self, wire_id: str, port: VlanPort) -> bool:
        """Make the wire's end in the node a port of its VLAN's bridge; return whether anything was to do."""
        with self._doors.open([self._home]) as places:
            place = places[self._home]
            domain, bridge, made = vlan_domain.ensure(
                place, port.interface, port.vlan, by_kernel=self._kernel_tags
            )
            joined = vlan_domain.join(place, bridge, name_of(wire_id))
        before = self._domains.get(wire_id)
        self._domains[wire_id] = port, domain
        if before is not None and before[1] != domain:
            self._drop_empty()
        return made or joined

    def _leave(self, wire_id: str) -> None:
        if self._domains.pop(wire_id, None) is not None:
            self._drop_empty()

    def _drop_empty(self) -> None:
        try:
            with self._doors.open([self._home], lenient=True) as places:
                place = places.get(self._home)
                if place is not None and vlan_domain.drop_empty(place):
                    self._reaper.give([place])
        except OSError as error:
            raise explain(error.errno or 0, "cannot close a VLAN that no wire uses") from error


class ApartVlanDatapath(VlanDatapath, ApartDatapath):
    """See :class:`VlanDatapath` and :class:`ApartDatapath`."""


def _refused(wire_id: str, port: VlanPort, error: MeshError | OSError) -> MeshError:
    what = f"cannot lead connection {wire_id} to VLAN {port.vlan} of {port.interface}"
    if isinstance(error, OSError):
        known = explain(error.errno or 0, what, error.strerror or "")
        return TunnelRefused(known.what, remedy=known.remedy)
    return TunnelRefused(f"{what}: {error.what}", remedy=error.remedy)
