"""A WireGuard interface in our own network namespace: the kernel's where it has one, else wireguard-go."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeAlias

import structlog

from nsmesh.core.errors import Conflict, Invalid, Refused, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.datapath import programs, wireguard_go
from nsmesh.datapath.child import Child
from nsmesh.datapath.wireguard_text import uapi_peers, uapi_set, wg_peers, wg_setconf
from nsmesh.endpoints.wireguard import routes
from nsmesh.model.wireguard import PeerStatus, Tunnel

log = structlog.get_logger()

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


@asynccontextmanager
async def tunnel_up(scope: Scope, tunnel: Tunnel) -> AsyncIterator[Device]:
    """Have ``tunnel`` up, with addresses and routes, while the block runs; ``scope`` owns what watches it.

    Raises Invalid, NotFound (neither the kernel nor wireguard-go is there), Conflict or Refused.
    """
    if not _NAME.fullmatch(tunnel.name):
        raise Invalid(f"{tunnel.name!r} cannot name a WireGuard interface", remedy="write a name such as wg0")
    device: Device
    device = KernelDevice(tunnel) if await _made_by_kernel(tunnel.name) else UserDevice(scope, tunnel)
    async with device.running():
        log.info("tunnel up", interface=tunnel.name, by=device.kind, public_key=tunnel.private_key.public)
        yield device


async def _made_by_kernel(name: str) -> bool:
    """Make a WireGuard interface, or find the one of an earlier run; False where the kernel has none."""
    made = await programs.run("ip", "link", "add", name, "type", "wireguard")
    if made.code == 0:
        return True
    if "File exists" in made.errors:
        links = json.loads(await programs.demand(Refused, "ip", "-d", "-j", "link", "show", "dev", name))
        if links and links[0].get("linkinfo", {}).get("info_kind") == "wireguard":
            return True
        raise Conflict(
            f"an interface {name} that is no WireGuard interface exists already", remedy="choose another name"
        )
    if "Unknown device type" in made.errors or "not supported" in made.errors:
        return False
    raise Refused(
        f"the interface {name} cannot be made: {made.errors.strip()}", remedy="CAP_NET_ADMIN is needed"
    )


async def _set_up(tunnel: Tunnel) -> None:
    """Give the interface its addresses, set it up and lead what is behind its peers into it."""
    name = tunnel.name
    # nobody else is on a tunnel to have the same address: without nodad, IPv6 ones come seconds late
    lines = [
        f"addr replace {address} dev {name}{' nodad' * (':' in address)}" for address in tunnel.addresses
    ]
    lines += [f"link set dev {name} mtu {tunnel.mtu} up"]
    lines += [f"route replace {prefix} dev {name}" for prefix in routes(tunnel)]
    await programs.demand(Refused, "ip", "-batch", "-", given="\n".join(lines) + "\n")


class KernelDevice:
    """The kernel's own WireGuard, told what to do by ``wg``."""

    kind = "the kernel"

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Configure the interface, which is there, and delete it in the end."""
        name = self.tunnel.name
        try:
            # by its standard input: a key belongs neither into a file of ours nor onto a command line
            config = wg_setconf(self.tunnel)
            await programs.demand(Refused, "wg", "setconf", name, "/dev/stdin", given=config)
            await _set_up(self.tunnel)
            yield self
        finally:
            await programs.run("ip", "link", "del", name)

    async def peers(self) -> list[PeerStatus]:
        """Return how the peers are. Raises Unavailable."""
        return wg_peers(await programs.demand(Unavailable, "wg", "show", self.tunnel.name, "dump"))


class UserDevice:
    """wireguard-go as a child: started again when it dies, configured anew each time."""

    kind = wireguard_go.PROGRAM

    def __init__(self, scope: Scope, tunnel: Tunnel) -> None:
        self.scope = scope
        self.tunnel = tunnel
        self.child: Child | None = None
        self._socket = Path()
        self._hidden = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run the child; its interface lives as long as it does."""
        self._hidden = await wireguard_go.can_hide()
        argv = wireguard_go.command(self.tunnel.name, hidden=self._hidden)
        self.child = Child(self.scope, wireguard_go.PROGRAM, argv, self._prepare, wireguard_go.ENVIRONMENT)
        async with self.child.running():
            yield self

    async def _prepare(self, pid: int) -> None:
        assert self.child is not None
        self._socket = wireguard_go.socket_of(self.tunnel.name, pid, hidden=self._hidden)
        await wireguard_go.ask_first(self.scope, self.child, self._socket, uapi_set(self.tunnel))
        await _set_up(self.tunnel)

    async def peers(self) -> list[PeerStatus]:
        """Return how the peers are. Raises Unavailable."""
        found = {
            peer.public_key: peer for peer in uapi_peers(await wireguard_go.ask(self._socket, "get=1\n\n"))
        }
        return [found[peer.public_key] for peer in self.tunnel.peers if peer.public_key in found]


Device: TypeAlias = KernelDevice | UserDevice
