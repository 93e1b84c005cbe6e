"""Tunnels for the driver ``linux``: one case for each kind of port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath import geneve, gre, vxlan
from nsmesh.datapath.abilities import wireguard_by_kernel
from nsmesh.datapath.base import CrossConnect, TunnelPort, TunnelRefused, TunnelTaken
from nsmesh.datapath.netlink import Netlink
from nsmesh.datapath.offloads import receive_as_it_comes
from nsmesh.datapath.places import Place
from nsmesh.datapath.veth import End
from nsmesh.datapath.wireguard import WireguardTunnels
from nsmesh.datapath.wirestate import EndState
from nsmesh.model.tunnels import GenevePort, GrePort, VxlanPort, WireguardPort

log = structlog.get_logger()


class Tunnels:
    """Makes and recognises the devices of tunnels.

    ``node`` is the path of the namespace that has the underlay, empty for our own; ``revive`` is called with
    the id of a wire whose device vanished with the program that made it. ``apart``: no device that could be
    changed from its pod may be there, so WireGuard is always wireguard-go. ``vxlan_gro``: whether VXLAN
    devices join what they receive.
    """

    def __init__(
        self,
        node: str,
        revive: Callable[[str], Awaitable[None]],
        *,
        apart: bool = False,
        vxlan_gro: bool = True,
    ) -> None:
        self._node = node
        self._vxlan_gro = vxlan_gro
        self._apart = apart
        self._revive = revive
        self._wireguard: WireguardTunnels | None = None

    async def prepare(self, wire: CrossConnect) -> None:
        """Do what takes its time before a device can be made; raises TunnelTaken or TunnelRefused."""
        if not isinstance(wire.tunnel, WireguardPort):
            await self.forget(wire.id)
            return
        if self._wireguard is None:
            by_kernel = not self._apart and await asyncio.to_thread(wireguard_by_kernel)
            self._wireguard = self._wireguard or WireguardTunnels(
                self._node, by_kernel=by_kernel, revive=self._revive
            )
        await self._wireguard.prepare(wire.id, wire.tunnel)

    def new_device(self, node: Netlink, end: End, wanted: EndState, tunnel: TunnelPort, group: int) -> bool:
        """Make the device in the pod, down and unnumbered; return False where its index is in use.

        Raises NameTaken where the name is in use, TunnelTaken where another device has the tunnel,
        TunnelRefused where the kernel will not make it.
        """
        try:
            match tunnel:
                case VxlanPort():
                    made = vxlan.new_device(node, end, wanted, tunnel, group)
                    if made and not self._vxlan_gro:
                        _join_nothing(end)
                    return made
                case GenevePort():
                    return geneve.new_device(node, end, wanted, tunnel, group)
                case GrePort():
                    return gre.new_device(node, end, wanted, tunnel, group)
                case WireguardPort() if self._wireguard is not None:
                    return self._wireguard.new_device(node, end, wanted, tunnel, group)
        except TunnelTaken:
            raise
        except MeshError as error:
            raise TunnelRefused(error.what, remedy=error.remedy) from error
        raise TunnelRefused(
            f"{end} cannot be a {type(tunnel).__name__}: this driver has no such tunnels",
            remedy="offer another mechanism",
        )

    def leads_to(self, wire: CrossConnect, place: Place, index: int) -> bool:
        """Whether an interface is the device of the wire's very tunnel; raises OSError."""
        tunnel = wire.tunnel
        if isinstance(tunnel, WireguardPort):
            return self._wireguard is not None and self._wireguard.leads_to(wire.id, index, tunnel)
        return tunnel is not None and self.is_device(tunnel, place, index)

    def is_device(self, tunnel: TunnelPort, place: Place, index: int) -> bool:
        """Whether an interface is the device of a tunnel that the kernel makes; raises OSError."""
        match tunnel:
            case VxlanPort():
                return vxlan.leads_to(place, index, tunnel)
            case GenevePort():
                return geneve.leads_to(place, index, tunnel)
            case GrePort():
                return gre.leads_to(place, index, tunnel)
        return False

    async def settle(self, wire_id: str) -> None:
        """Wait until packets pass through a device that was made just now."""
        if self._wireguard is not None:
            await self._wireguard.settle(wire_id)

    async def forget(self, wire_id: str) -> None:
        """End the program behind a wire, if there is one."""
        if self._wireguard is not None:
            await self._wireguard.forget(wire_id)

    async def aclose(self) -> None:
        """End all programs; devices that the kernel alone makes stay."""
        if self._wireguard is not None:
            await self._wireguard.aclose()


def _join_nothing(end: End) -> None:
    """Turn GRO off at a new device; one that keeps it carries the same, a little slower."""
    try:
        receive_as_it_comes(end.place.netlink.fileno(), end.name)
    except OSError as error:
        log.info("a tunnel keeps GRO", end=str(end), why=error.strerror)
