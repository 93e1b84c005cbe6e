"""The driver ``linux`` with wires by segment routing (SRV6).

The pod has one end of a veth pair. At the other end, in the node, a program puts the headers in front of
each frame and sends it to the other node; what comes from there is taken out by the kernel (``seg6local``)
and sent through that end. The node's own routes, rules, forwarding and firewall have no part in it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from nsmesh.core.errors import MeshError
from nsmesh.datapath import netns, rtnetlink, srv6, veth
from nsmesh.datapath.base import Applied, CrossConnect, KernelPort, TunnelRefused
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.netlink import Batch
from nsmesh.datapath.offloads import cut_before_sending
from nsmesh.datapath.places import Place
from nsmesh.model.tunnels import Srv6Port


def name_of(wire_id: str) -> str:
    """Return the name in the node of the end of a wire."""
    return f"nsms{hashlib.sha256(wire_id.encode()).hexdigest()[:10]}"


def made_anew(applied: Applied) -> bool:
    """Whether an apply made interfaces, in the place of others or of none."""
    return applied.outcome == "created" or (applied.outcome == "changed" and not applied.details)


class SegmentDatapath(LinuxDatapath):
    """See :class:`LinuxDatapath`; wires may also be SRV6."""

    def __init__(
        self,
        *,
        owner: str = "",
        namespaces: Callable[[], Iterable[str]] = tuple,
        node: str = "",
        vxlan_gro: bool = True,
    ) -> None:
        # our own by a descriptor: /proc/PID/ns/net is wherever the thread happens to be just now
        self._own = -1 if node else netns.current()
        self._home = home = node or f"/proc/self/fd/{self._own}"
        self._segments: dict[str, tuple[Srv6Port, KernelPort, int]] = {}
        super().__init__(
            owner=owner, namespaces=lambda: [*namespaces(), home], node=node, vxlan_gro=vxlan_gro
        )

    async def apply(self, wire: CrossConnect) -> Applied:
        """See :meth:`Datapath.apply`."""
        tunnel = wire.tunnel
        if not isinstance(tunnel, Srv6Port):
            applied = await super().apply(wire)
            self._segments.pop(wire.id, None)
            return applied
        pod = wire.interfaces[0]
        if wire.formerly:
            self._rename(wire.formerly, name_of(wire.formerly), name_of(wire.id))
        near = KernelPort(self._home, name_of(wire.id), mtu=pod.mtu, numbered=False, led=True)
        ends = (pod, near) if wire.a is pod else (near, pod)
        applied = await super().apply(replace(wire, a=ends[0], b=ends[1]))
        anew = made_anew(applied)
        if anew:
            self._segments.pop(wire.id, None)  # a new interface may have the index of the one before
        try:
            self._lead(wire.id, tunnel, pod)
        except BaseException:
            if anew:
                await self.remove(wire.id)
                await self.drain()  # the name is free again for the next mechanism
            raise
        macs = (applied.a_mac, "") if wire.a is pod else ("", applied.b_mac)
        return replace(applied, a_mac=macs[0], b_mac=macs[1])

    async def restore(self, wire_id: str) -> Applied | None:
        """See :meth:`Watched.restore`."""
        applied = await super().restore(wire_id)
        led = self._segments.get(wire_id)
        if applied is not None and led is not None and made_anew(applied):
            del self._segments[wire_id]
            self._lead(wire_id, led[0], led[1])
        return applied

    async def remove(self, wire_id: str) -> None:
        """See :meth:`Datapath.remove`."""
        await super().remove(wire_id)
        self._segments.pop(wire_id, None)

    async def aclose(self) -> None:
        """See :meth:`Datapath.aclose`."""
        await super().aclose()
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def _rename(self, owner: str, before: str, after: str) -> None:
        """Give an end in the node that another forwarder made, since replaced, the name that it has here."""
        with self._doors.open([self._home]) as places:
            place = places[self._home]
            found = veth.find_link(place, name=before)
            if found is None or found.owner != owner or before == after:
                return
            batch = Batch()
            batch.put(rtnetlink.set_name(found.index, after))
            failures = place.netlink.send(batch)
            if failures and failures[0].number == errno.EBUSY:  # kernels before 6.2: not while it is up
                batch = Batch()
                batch.put(rtnetlink.set_up(found.index, up=False))
                batch.put(rtnetlink.set_name(found.index, after))
                batch.put(rtnetlink.set_up(found.index))
                failures = place.netlink.send(batch)
            for failure in failures:
                raise explain(failure.number, f"cannot rename {before} to {after}", failure.text)

    def _lead(self, wire_id: str, tunnel: Srv6Port, pod: KernelPort) -> None:
        """Have frames led between the wire's end in the node and the other node."""
        name = name_of(wire_id)
        with self._doors.open([self._home]) as places:
            place = places[self._home]
            near = veth.find_link(place, name=name)
            if near is None:
                raise explain(errno.ENODEV, f"cannot lead connection {wire_id} to its segments")
            if self._segments.get(wire_id) == (tunnel, pod, near.index) and not srv6.is_routed(tunnel):
                return
            try:
                netns.call_in(pod.netns, lambda: cut_before_sending(pod.name))
                self._lead_by(place, near.index, name, tunnel)
            except MeshError:
                raise
            except OSError as error:
                raise TunnelRefused(
                    f"packets of connection {wire_id} cannot be led to their segments: {error.strerror}",
                    remedy="the kernel needs seg6, cls_bpf and bpf_redirect_neigh; or use another mechanism",
                ) from error
            self._segments[wire_id] = (tunnel, pod, near.index)

    def _lead_by(self, place: Place, near: int, name: str, tunnel: Srv6Port) -> None:
        """Send first, then receive.

        IPv6 is off at the end until all that comes in there is led away: nothing of a pod's reaches the node.
        """
        srv6.send_out(place.netlink, near, tunnel, *srv6.way_to(place.netlink, tunnel))
        self._doors.switch_ipv6(place, name, on=True)
        srv6.take_in(place.netlink, near, tunnel)
