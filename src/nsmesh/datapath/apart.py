"""The driver ``linux`` with tunnels that end in the node, out of the pods' reach.

Who may administer a pod's network could point a tunnel device in that pod elsewhere. Here the pod has one end
of a veth pair; the other end and the tunnel device are in the node, and the kernel leads all frames from one
to the other. It costs a packet one more step. Frames only: a tunnel of bare packets ends in the pod as a
device that cannot be changed from there (wireguard-go), or is refused.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace

from nsmesh.datapath import redirect, rtnetlink, veth
from nsmesh.datapath.base import Applied, CrossConnect, KernelPort, TunnelPort, TunnelRefused
from nsmesh.datapath.inventory import close_ends
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch
from nsmesh.datapath.places import Place
from nsmesh.datapath.segments import SegmentDatapath, made_anew
from nsmesh.datapath.tunnels import Tunnels
from nsmesh.datapath.veth import DOOMED_GROUP, End, NameTaken
from nsmesh.datapath.wirestate import EndState, alias_of
from nsmesh.model.tunnels import Srv6Port, WireguardPort

_TRIES = 4


def names_of(wire_id: str) -> tuple[str, str]:
    """Return the names in the node of a wire's veth end and of its tunnel device."""
    digest = hashlib.sha256(wire_id.encode()).hexdigest()[:10]
    return f"nsmv{digest}", f"nsmt{digest}"


class ApartDatapath(SegmentDatapath):
    """See :class:`SegmentDatapath`; tunnels of all other kinds end in the node, too."""

    def __init__(
        self,
        *,
        owner: str = "",
        namespaces: Callable[[], Iterable[str]] = tuple,
        node: str = "",
        vxlan_gro: bool = True,
    ) -> None:
        super().__init__(owner=owner, namespaces=namespaces, node=node)
        self._tunnels = Tunnels(node, self._revive, apart=True, vxlan_gro=vxlan_gro)
        self._joined: dict[str, tuple[TunnelPort, int, int]] = {}

    async def apply(self, wire: CrossConnect) -> Applied:
        """See :meth:`Datapath.apply`."""
        tunnel = wire.tunnel
        if tunnel is None or isinstance(tunnel, WireguardPort | Srv6Port):
            applied = await super().apply(wire)
            self._part(wire.id)
            return applied
        if not tunnel.frames:
            raise TunnelRefused(
                f"connection {wire.id} has a tunnel of bare packets, which cannot end in the node",
                remedy="unset NSM_TUNNELS_APART, or offer another mechanism",
            )
        pod = wire.interfaces[0]
        if wire.formerly:
            self._take_over(wire)
        near = KernelPort(self._home, names_of(wire.id)[0], mtu=pod.mtu, numbered=False)
        ends = (pod, near) if wire.a is pod else (near, pod)
        applied = await super().apply(replace(wire, a=ends[0], b=ends[1]))
        if made_anew(applied):
            self._joined.pop(wire.id, None)  # a new interface may have the index of the one before
        try:
            self._join(wire.id, tunnel, pod.mtu)
        except BaseException:
            await self.remove(wire.id)
            raise
        kept = (applied.a_mac, "") if wire.a is pod else ("", applied.b_mac)
        return replace(applied, a_mac=kept[0], b_mac=kept[1])

    async def remove(self, wire_id: str) -> None:
        """See :meth:`Datapath.remove`."""
        await super().remove(wire_id)
        self._part(wire_id)

    async def restore(self, wire_id: str) -> Applied | None:
        """See :meth:`Watched.restore`."""
        applied = await super().restore(wire_id)
        joined = self._joined.get(wire_id)
        if applied is not None and joined is not None and made_anew(applied):
            del self._joined[wire_id]
            self._join(wire_id, joined[0], self._records[wire_id].wire.interfaces[0].mtu)
        return applied

    def _take_over(self, wire: CrossConnect) -> None:
        """Have what another forwarder made in the node, since replaced, named and marked as this one does."""
        for before, after in zip(names_of(wire.formerly), names_of(wire.id), strict=True):
            self._rename(wire.formerly, before, after)
        with self._doors.open([self._home]) as places:
            place = places[self._home]
            device = veth.find_link(place, name=names_of(wire.id)[1])
            if device is not None and device.owner == wire.formerly:
                batch = Batch()
                batch.put(rtnetlink.mark(device.index, alias_of(wire.id), no_link_local=False))
                batch.put(rtnetlink.set_group(device.index, self._group))
                for failure in place.netlink.send(batch):
                    raise explain(failure.number, f"cannot take over {device.name}", failure.text)

    def _part(self, wire_id: str) -> None:
        """Take away the tunnel's device in the node, where a wire has one."""
        joined = self._joined.pop(wire_id, None)
        if joined is not None:
            close_ends(self._doors, self._reaper, {(self._home, joined[2])}, {wire_id}, rules=False)

    def _join(self, wire_id: str, tunnel: TunnelPort, mtu: int) -> None:
        """Have the tunnel's device in the node, and frames led between it and the veth end."""
        with self._doors.open([self._home]) as places:
            place = places[self._home]
            near = veth.find_link(place, name=names_of(wire_id)[0])
            if near is None:
                raise explain(errno.ENODEV, f"cannot join the tunnel of connection {wire_id}")
            device = self._device(place, wire_id, tunnel, mtu)
            if self._joined.get(wire_id) == (tunnel, near.index, device):
                return
            _lead(place, wire_id, near.index, device)
            self._joined[wire_id] = (tunnel, near.index, device)

    def _device(self, place: Place, wire_id: str, tunnel: TunnelPort, mtu: int) -> int:
        """Return the index of the tunnel's device; one that leads elsewhere is made anew."""
        name = names_of(wire_id)[1]
        found = veth.find_link(place, name=name)
        if found is not None and found.group != DOOMED_GROUP and found.owner == wire_id:
            if self._tunnels.is_device(tunnel, place, found.index) and (not mtu or found.mtu == mtu):
                return found.index
            veth.retire(place, found.index, rename=True)
            batch = Batch()
            batch.put(rtnetlink.delete_group(DOOMED_GROUP))
            place.netlink.send(batch)
        for _ in range(_TRIES):
            end = End(place, name, veth.fresh_index(), wire_id)
            state = EndState(mac=veth.fresh_mac(), mtu=mtu, ipv6=False)
            try:
                made = self._tunnels.new_device(place.netlink, end, state, tunnel, self._group)
            except NameTaken:
                raise TunnelRefused(f"{end} exists already", remedy="remove that interface") from None
            if made:
                batch = Batch()
                batch.put(
                    rtnetlink.mark(end.ifindex, alias_of(wire_id), no_link_local=state.has_room_for_ipv6)
                )
                batch.put(rtnetlink.set_up(end.ifindex))
                for failure in place.netlink.send(batch):
                    raise explain(failure.number, f"cannot configure {end}", failure.text)
                return end.ifindex
            veth.skip_indexes()
        raise TunnelRefused(f"no free interface index was found for connection {wire_id}", remedy="ask again")


def _lead(place: Place, wire_id: str, near: int, device: int) -> None:
    if why := redirect.join(place.netlink, near, device):
        raise TunnelRefused(
            f"frames of connection {wire_id} cannot be led to its tunnel: {why}",
            remedy="the kernel needs sch_ingress, cls_u32 and act_mirred; or unset NSM_TUNNELS_APART",
        )
