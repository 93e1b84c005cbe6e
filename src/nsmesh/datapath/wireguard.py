"""A wire between nodes as a WireGuard device: the kernel's where it has one, else that of a wireguard-go.

The kernel's is made directly in the pod while its UDP socket stays in the node. A wireguard-go runs in the
node, one for each wire, and its device is moved into the pod; program and device end with this process, and
a device whose program died is made anew.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError, Refused
from nsmesh.core.scope import Scope
from nsmesh.datapath import netns, wireguard_go
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.base import TunnelRefused, TunnelTaken
from nsmesh.datapath.child import Child
from nsmesh.datapath.device import described, move, passing_name, send_new
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Message, Netlink, attribute, request, u32
from nsmesh.datapath.rtread import read_link
from nsmesh.datapath.veth import End
from nsmesh.datapath.wireguard_text import uapi_set, wg_setconf
from nsmesh.datapath.wirestate import EndState
from nsmesh.model.tunnels import WireguardPort
from nsmesh.model.wireguard import MTU, Tunnel, TunnelPeer

log = structlog.get_logger()

KIND = "wireguard"
EVERYTHING = ("0.0.0.0/0", "::/0")
TUN = "/dev/net/tun"
_PATIENCE = 10.0
_NOTICED, _LOOKED, _POLL, _HEARD = 0.1, 1.5, 0.005, 0.02
"""Seconds: until a program has seen its device go; until it has looked for it again, which it does once a
second; between two looks of ours; until it has heard of a change."""


def lacks_program() -> str:
    """Return why no wireguard-go can run here, or nothing."""
    if shutil.which(wireguard_go.PROGRAM) is None:
        return f"the program {wireguard_go.PROGRAM} is not here"
    return "" if Path(TUN).exists() else f"{TUN} is not here"


def tunnel_of(name: str, port: WireguardPort) -> Tunnel:
    """Return the configuration of one end: a single peer, from which everything may come."""
    host = f"[{port.remote}]" if ":" in port.remote else port.remote
    peer = TunnelPeer(port.peer_key, f"{host}:{port.remote_port}", EVERYTHING)
    return Tunnel(name, port.private_key, listen_port=port.local_port, peers=(peer,))


@dataclass(slots=True)
class _Running:
    """A tunnel as it is. ``device`` is its name in the node, ``index`` its interface in the pod, 0 before."""

    port: WireguardPort
    device: str
    child: Child | None
    stack: AsyncExitStack
    index: int = 0
    settled: bool = False


class WireguardTunnels:
    """The WireGuard devices of a node, by wire id.

    ``node`` is the path of the namespace that has the underlay, empty for our own; ``by_kernel`` says whether
    the kernel makes them; ``revive`` is called with the id of a wire whose program was started again.
    """

    def __init__(self, node: str, *, by_kernel: bool, revive: Callable[[str], Awaitable[None]]) -> None:
        self._node = node
        self._by_kernel = by_kernel
        self._revive = revive
        self._scope = Scope("wireguard")
        self._stack = AsyncExitStack()
        self._running: dict[str, _Running] = {}
        self._hidden: bool | None = None

    async def prepare(self, wire_id: str, port: WireguardPort) -> None:
        """Have the program of a wire running; its device is in the node until :meth:`new_device`.

        Raises TunnelTaken where another program has the UDP port, TunnelRefused where it does not start.
        """
        found = self._running.get(wire_id)
        if found is not None and _same(found.port, port) and (found.child is None or found.child.pid):
            return
        await self.forget(wire_id)
        own = self._by_kernel and found is not None and found.port.local_port == port.local_port
        if not own:  # else the kernel's device has it, which goes before the next one comes
            self._check_free(port)
        stack = AsyncExitStack()
        running = self._running[wire_id] = _Running(port, passing_name(), None, stack)
        if self._by_kernel:
            return
        try:
            await self._start(wire_id, running)
        except MeshError as error:
            await self.forget(wire_id)
            raise TunnelRefused(
                f"wireguard-go for connection {wire_id} did not start: {error.what}", remedy=error.remedy
            ) from error
        except BaseException:
            await self.forget(wire_id)
            raise

    async def _start(self, wire_id: str, running: _Running) -> None:
        if not self._scope.running:
            await self._stack.enter_async_context(self._scope)
        if self._hidden is None:
            self._hidden = await wireguard_go.can_hide()
        hidden = self._hidden
        argv = wireguard_go.command(running.device, hidden=hidden)
        if self._node:
            argv = ("nsenter", f"--net={self._node}", *argv)

        async def configure(pid: int) -> None:
            again, running.index, running.settled = running.index != 0, 0, False
            where = wireguard_go.socket_of(running.device, pid, hidden=hidden)
            await wireguard_go.ask_first(self._scope, child, where, "get=1\n\n")
            # while it is in the node the program hears of changes of its device; from the pod it does not
            self._change(running, rt.set_mtu, running.port.mtu or MTU)
            await wireguard_go.ask(where, uapi_set(tunnel_of(running.device, running.port)))
            self._change(running, rt.set_up)
            await self._await_listening(running.port)
            await asyncio.sleep(_HEARD)  # it tells nobody when it has heard of the MTU
            if again:
                self._scope.spawn(self._come_back(wire_id), name=f"revive {wire_id}")

        child = Child(self._scope, wireguard_go.PROGRAM, argv, configure, wireguard_go.ENVIRONMENT)
        running.child = child
        await running.stack.enter_async_context(child.running())

    def _change(self, running: _Running, message: Callable[..., Message], *values: int) -> None:
        """Change a device that is still in the node."""
        with netns.call_in(self._node, Netlink) if self._node else Netlink() as node:
            link = read_link(node, name=running.device)
            if link is None:
                raise Refused(f"{wireguard_go.PROGRAM} has no device", remedy="ask again")
            batch = Batch()
            batch.put(message(link.index, *values))
            for failure in node.send(batch):
                raise explain(failure.number, f"cannot change {running.device}", failure.text)

    async def _await_listening(self, port: WireguardPort) -> None:
        if not await self._listens(port, wanted=True, seconds=wireguard_go.READY):
            raise Refused(
                f"{wireguard_go.PROGRAM} does not listen on UDP port {port.local_port}",
                remedy="look for another program with that port",
            )

    async def settle(self, wire_id: str) -> None:
        """Wait until packets can pass: a program looks once a second whether its device is up in the pod."""
        running = self._running.get(wire_id)
        if running is None or running.child is None or running.settled:
            return
        await self._listens(running.port, wanted=False, seconds=_NOTICED)
        running.settled = await self._listens(running.port, wanted=True, seconds=_LOOKED)

    async def _listens(self, port: WireguardPort, *, wanted: bool, seconds: float) -> bool:
        """Wait until the program listens, or no longer does; return whether it came to that."""
        end = self._scope.clock.monotonic() + seconds
        while True:
            found = netns.call_in(self._node, _udp_ports) if self._node else _udp_ports()
            if (port.local_port in found) == wanted:
                return True
            if self._scope.clock.monotonic() > end:
                return False
            await asyncio.sleep(_POLL)

    async def _come_back(self, wire_id: str) -> None:
        try:
            await self._revive(wire_id)
        except MeshError as error:
            log.warning("a tunnel did not come back", connection=wire_id, error=str(error))

    def _check_free(self, port: WireguardPort) -> None:
        """Raise TunnelTaken where the UDP port is in use: wireguard-go itself would only log it."""

        def bind() -> None:
            family = socket.AF_INET6 if ":" in port.local else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind(("", port.local_port))

        try:
            netns.call_in(self._node, bind) if self._node else bind()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise TunnelTaken(
                f"UDP port {port.local_port} of this node is another program's or wire's",
                remedy="ask again: another one is chosen",
            ) from None

    def new_device(self, node: Netlink, end: End, wanted: EndState, port: WireguardPort, group: int) -> bool:
        """Have the device in the pod, down and unnumbered; see :func:`nsmesh.datapath.device.send_new`."""
        running = self._running[end.wire_id]
        if running.child is not None:
            if not move(node, running.device, end, wanted.mtu, group):
                return False
        else:
            body = rt.IFINFO.pack(0, 0, end.ifindex, 0, 0) + u32(rt.IFLA_GROUP, group)  # it has no MAC
            body += (u32(rt.IFLA_MTU, wanted.mtu) if wanted.mtu else b"") + described(KIND, b"")
            body += attribute(rt.IFLA_IFNAME, end.name.encode() + b"\0")
            body += u32(rt.IFLA_NET_NS_FD, end.place.descriptor)
            message = request(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)
            if not send_new(node, end, message, port.remote, "the device"):
                return False
            _set_by_wg(end, port)
        running.index = end.ifindex
        return True

    def leads_to(self, wire_id: str, index: int, port: WireguardPort) -> bool:
        """Whether an interface is the device of this very tunnel, made by us."""
        found = self._running.get(wire_id)
        return found is not None and found.index == index and _same(found.port, port)

    async def forget(self, wire_id: str) -> None:
        """End the program of a wire, and its device with it; a device of the kernel is left alone."""
        found = self._running.pop(wire_id, None)
        if found is not None:
            await found.stack.aclose()

    async def aclose(self) -> None:
        """End all programs."""
        for wire_id in list(self._running):
            await self.forget(wire_id)
        await self._stack.aclose()


def _udp_ports() -> set[int]:
    """Return the UDP ports in use in the namespace of the calling thread."""
    found = set()
    for table in ("udp", "udp6"):
        path = Path(f"/proc/thread-self/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            found.add(int(line.split()[1].rpartition(":")[2], 16))
    return found


def _same(one: WireguardPort, other: WireguardPort) -> bool:
    return replace(one, mtu=0) == replace(other, mtu=0)


def _set_by_wg(end: End, port: WireguardPort) -> None:
    """Configure a device of the kernel; by standard input: a key belongs into no file and no command line."""
    argv = ["nsenter", f"--net=/proc/self/fd/{end.place.descriptor}", "wg", "setconf", end.name, "/dev/stdin"]
    done = subprocess.run(
        argv,
        input=wg_setconf(tunnel_of(end.name, port)).encode(),
        pass_fds=(end.place.descriptor,),
        capture_output=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise Refused(f"wg cannot configure {end}: {said}", remedy="install wireguard-tools")
