"""A WireGuard interface in our own network namespace: the kernel's where it has one, else wireguard-go.

wireguard-go offers its control socket at ``/var/run/wireguard/NAME.sock``, one folder for all network
namespaces of the machine. It is started in a mount namespace of its own with an empty ``/var/run``, so that
two instances may use the same interface name and nothing stays behind; we reach the socket through
``/proc/PID/root``. Where mounting is not allowed (a container has its own folder anyway) the usual place is
used.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeAlias

import structlog

from nsmesh.core.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.endpoints import programs
from nsmesh.endpoints.child import Child
from nsmesh.endpoints.wireguard import PeerStatus, Tunnel, routes
from nsmesh.endpoints.wireguard_text import uapi_answer, uapi_peers, uapi_set, wg_peers, wg_setconf

log = structlog.get_logger()

SOCKETS = "/var/run/wireguard"
"""Folder in which wireguard-go makes its sockets."""
READY = 5.0
"""Seconds until the socket of a wireguard-go that was just started is there."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_HIDDEN = 'mount -t tmpfs -o mode=755 tmpfs /var/run && exec "$0" -f "$1"'
_PROGRAM = "wireguard-go"


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

    kind = _PROGRAM

    def __init__(self, scope: Scope, tunnel: Tunnel) -> None:
        self.scope = scope
        self.tunnel = tunnel
        self.child: Child | None = None
        self._socket = Path()
        self._hidden = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run the child; its interface lives as long as it does."""
        argv: tuple[str, ...] = (_PROGRAM, "-f", self.tunnel.name)
        self._hidden = (await programs.run("unshare", "--mount", "true")).code == 0
        if self._hidden:
            private = ("unshare", "--mount", "--propagation", "private")
            argv = (*private, "sh", "-c", _HIDDEN, _PROGRAM, self.tunnel.name)
        self.child = Child(self.scope, _PROGRAM, argv, self._prepare, {"LOG_LEVEL": "error"})
        async with self.child.running():
            yield self

    async def _prepare(self, pid: int) -> None:
        folder = Path(SOCKETS)
        if self._hidden:
            # resolved here: an absolute link below /proc/PID/root would lead back to our own root
            folder = Path(f"/proc/{pid}/root") / folder.resolve().relative_to("/")
        self._socket = folder / f"{self.tunnel.name}.sock"
        end = self.scope.clock.monotonic() + READY
        while True:
            try:
                await self._ask(uapi_set(self.tunnel))
                break
            except Unavailable:
                if self.scope.clock.monotonic() > end:
                    raise
                self._expect_child()
                await asyncio.sleep(0.01)
        await _set_up(self.tunnel)

    def _expect_child(self) -> None:
        assert self.child is not None
        if self.child.pid is None:
            raise NotFound(
                f"this kernel has no WireGuard, and {_PROGRAM} ended at once",
                remedy=f"load the module wireguard or install {_PROGRAM}; /dev/net/tun must be there",
            )

    async def _ask(self, request: str) -> list[tuple[str, str]]:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError as error:
            raise Unavailable(f"{_PROGRAM} does not answer at {self._socket}: {error.strerror}") from None
        try:
            writer.write(request.encode())
            async with asyncio.timeout(READY):
                answer = await reader.readuntil(b"\n\n")
        except (OSError, EOFError, TimeoutError) as error:
            raise Unavailable(f"{_PROGRAM} did not answer at {self._socket}: {error!r}") from None
        finally:
            writer.close()
        return uapi_answer(answer.decode())

    async def peers(self) -> list[PeerStatus]:
        """Return how the peers are. Raises Unavailable."""
        found = {peer.public_key: peer for peer in uapi_peers(await self._ask("get=1\n\n"))}
        return [found[peer.public_key] for peer in self.tunnel.peers if peer.public_key in found]


Device: TypeAlias = KernelDevice | UserDevice
