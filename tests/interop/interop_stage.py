"""One play, set up: identities, sockets, played roles, ours; and run in virtual time."""

from __future__ import annotations

import asyncio
import selectors
import socket
import tempfile
import time
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from cryptography import x509
from interop_bindings import Bindings
from interop_next_hop import FORWARDER, NextHop
from interop_ours import Ours
from interop_player import Player
from interop_prologue import prologue
from interop_standin import StandIn
from interop_trace import Trace, load

from nsmesh import rpc
from nsmesh.core.errors import MeshError
from nsmesh.core.virtual import VirtualClock, VirtualLoop
from nsmesh.model import methods
from nsmesh.rpc.files import HELD
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import Svid, SvidSource

T = TypeVar("T")
GRACE = 0.003
"""Real seconds in which bytes may be under way before virtual time moves on."""
DEAD = {"heal-endpoint": (1, 2), "heal-forwarder": (1, 99)}
"""Conversations in which the client's wire dies: the Requests from which on and until it is seen dead."""
POLICIES = """\
- from: 172.16.2.200/24
  proto: 6
  dstport: 6666
  srcport: 5555
  routes:
  - prefix: 0.0.0.0/0
    nexthop: 172.16.2.1
- from: 2001:db8:1::/64
"""
"""The file of policy routes that local-kernel-dual-stack was recorded with."""


class _Patient(selectors.SelectSelector):
    """Looks once more, for a moment, before the clock jumps: the kernel may still carry bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        ready = super().select(GRACE if timeout is not None else 0.05)
        if not ready and timeout is not None:
            self.skipped += max(timeout, 0.0)
        return ready


class _Loop(VirtualLoop):
    def __init__(self) -> None:
        self._jumping = _Patient()  # type: ignore[assignment]
        asyncio.SelectorEventLoop.__init__(self, self._jumping)
        self._clock_resolution = 1e-6


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a loop whose clock jumps, with real sockets."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


@dataclass(frozen=True)
class Outcome:
    """What came of a play: what differed, and not on purpose; how many calls were compared and recorded."""

    differences: list[str]
    compared: int
    recorded: int


class Stage:
    """Sets one play up. ``spaces``: paths of network namespaces, by the names of the recording."""

    def __init__(self, name: str, role: str, spaces: Mapping[str, Path]) -> None:
        self.trace: Trace = load(name)
        self.role = role
        self.spaces = spaces
        self.dead = range(*DEAD.get(name, (0, 0)))
        self.clock = VirtualClock(time.time())
        self.stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="play-")))
        self._identities()
        self.bindings = Bindings(self.trace, self.role, self.clock, self.svids)
        self.transport = {
            (event["from"], event["to"]): event["transport"]
            for event in self.trace.events
            if event["ev"] == "connect"
        }
        self._addresses()
        self.standins = {role: self._standin(role) for role in self._played()}
        self.player = Player(self.trace, self.bindings, self.standins, self._our_url)
        for standin in self.standins.values():
            standin.methods = self._methods(standin.name)
            await standin.start()
            self.stack.push_async_callback(standin.aclose)
        self._files()
        self.ours = Ours(
            self.role,
            self._environment(),
            self.source(self.role),
            self.clock,
            list(self.listens[self.role].values()),
            manager=self._reached("nsmgr"),
            registry=self._reached("registry"),
            netns=self.bindings.files.get(f"netns:{self.role}"),
            alive=self._looks_alive,
        )
        self.stack.push_async_callback(self.ours.stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()

    def _looks_alive(self) -> bool:
        """Say what our client sees of its wires."""
        asked = [one for one in self.player.expected if one.call.method == methods.REQUEST]
        return sum(one.arrived.is_set() for one in asked) not in self.dead

    def _environment(self) -> dict[str, str]:
        """Return the recorded variables, in a folder of this play, with the files that they name."""
        found = {
            key: value.replace("RUN", str(self.folder))
            for key, value in self.trace.environment(self.role).items()
        }
        policies = found.get("NSM_PBR_CONFIG_PATH")
        if policies:
            Path(policies).parent.mkdir(exist_ok=True)
            Path(policies).write_text(POLICIES)
        return found

    def _identities(self) -> None:
        domain = self.trace.spiffe_id(self.role).removeprefix("spiffe://").partition("/")[0]
        ca = CertificateAuthority.open(self.folder / "ca", domain, clock=self.clock)
        other = CertificateAuthority.open(self.folder / "other", domain, clock=self.clock)
        moved = self.clock.now() - self.trace.recorded_at
        self.svids: dict[str, Svid] = {}
        for role, one in self.trace.header["identities"].items():
            leaf = x509.load_pem_x509_certificate(one["leaf"].encode())
            ttl = leaf.not_valid_after_utc.timestamp() + moved - self.clock.now()
            self.svids[role] = ca.issue(one["spiffe_id"], ttl)
        for token in self.trace.tokens.values():
            signer = token.get("signature")
            if signer and signer not in {"foreign", *self.svids}:
                self.svids[signer] = ca.issue(token["claims"]["sub"])
        for role in ("registry", FORWARDER):
            if role not in self.svids:
                self.svids[role] = ca.issue(f"spiffe://{domain}/{role}")
        self.svids["foreign"] = other.issue(self.trace.spiffe_id(self.role))
        self.bundles = [ca.bundle()]

    def _played(self) -> list[str]:
        played = {call.server for call in self.trace.calls if call.client == self.role}
        played |= {call.client for call in self.trace.calls if call.server == self.role}
        if self.role.startswith(("nse", "forwarder", "nsc")) and not played & {"nsmgr", "nsmgr2"}:
            played.add("nsmgr")
        if self.role.startswith("forwarder"):  # endpoints that die as the recording begins
            sockets = {name.removeprefix("socket:") for name in self.trace.inodes.values()}
            played |= {role for role in sockets if role.startswith("nse")}
        if self.role.startswith("nsmgr"):
            played.add("registry")
            requests = any(
                call.server == self.role and call.method == methods.REQUEST for call in self.trace.calls
            )
            if requests and not any(role.startswith(FORWARDER) for role in played):
                played.add(FORWARDER)
        return sorted(played - {self.role, "workload-api"})

    def _addresses(self) -> None:
        """Choose where each role listens: live URLs by transport."""
        self.listens: dict[str, dict[str, str]] = {}
        for role in {self.role, *self._played()}:
            urls = {}
            if role != "registry":
                urls["unix"] = f"unix://{self.folder}/{role}.sock"
            if role.startswith(("nsmgr", "registry")):
                urls["tcp"] = f"tcp://127.0.0.1:{_free_port()}"
            self.listens[role] = urls
            for url in self.trace.environment(role).get("NSM_LISTEN_ON", "").split(","):
                if url.startswith("tcp:") and role.startswith("nsmgr"):
                    self.bindings.urls[url] = urls["tcp"]

    def _reached(self, kind: str) -> str:
        """Return where our role finds its manager or registry."""
        standin = next((one for name, one in self.standins.items() if name.startswith(kind)), None)
        hop = next(
            (name for name in self.standins if (self.role, name) in self.transport and name.startswith(kind)),
            None,
        )
        return self.standins[hop].url if hop else standin.url if standin else ""

    def _standin(self, role: str) -> StandIn:
        urls = self.listens[role]
        transport = self.transport.get((self.role, role), "tcp" if role == "registry" else "unix")
        return StandIn(role, self.source(role), urls.get(transport, ""))

    def source(self, role: str) -> SvidSource:
        """Return the identity of a role."""
        return SvidSource(self.svids[role], self.bundles, clock=self.clock)

    def _our_url(self, client: str) -> str:
        urls = self.listens[self.role]
        wanted = self.transport.get((client, self.role), "unix")
        return urls.get(wanted) or next(iter(urls.values()))

    def _files(self) -> None:
        for name in set(self.trace.inodes.values()):
            kind, _, role = name.partition(":")
            if kind == "netns":
                self.bindings.files[name] = self.spaces[role]
                continue
            path = self.folder / f"{role}.sock"
            self.bindings.files[name] = path
            if role in self.standins:
                standin = self.standins[role]
                self.bindings.sockets[name] = lambda standin=standin: standin.socket
            if role not in self.standins and role != self.role:
                one = socket.socket(socket.AF_UNIX)
                self.stack.callback(one.close)
                one.bind(str(path))

    def _methods(self, role: str) -> dict[str, rpc.Method]:
        def unary(path: str) -> rpc.Unary:
            return rpc.Unary(lambda call, body: self.player.taking.unary(role, call, body))

        found: dict[str, rpc.Method] = {
            path: unary(path)
            for path in (
                methods.REQUEST,
                methods.CLOSE,
                methods.SERVICE_REGISTER,
                methods.SERVICE_UNREGISTER,
                methods.ENDPOINT_REGISTER,
                methods.ENDPOINT_UNREGISTER,
            )
        }
        for path in (methods.SERVICE_FIND, methods.ENDPOINT_FIND):
            found[path] = rpc.ServerStream(lambda call, body: self.player.taking.find(role, call, body))
        found[methods.MONITOR] = rpc.ServerStream(
            lambda call, body: self.player.taking.monitor(role, call, body)
        )
        return found

    # -- running it ------------------------------------------------------------------------------------------

    async def play(self) -> Outcome:
        """Play; return what came of it."""
        player = self.player
        await player.world.begin()
        if (
            self.role.startswith("nsmgr")
            and (self.role, FORWARDER) not in self.transport
            and FORWARDER in self.standins
        ):
            player.next_hop = NextHop(player)
        await prologue(self)
        player.prologue = False
        player.begin = asyncio.get_running_loop().time()
        self.bindings.delta = self.clock.now() - self.trace.recorded_at
        await player.play({"start": self.ours.start, "signal": self.ours.stop})
        recorded = len(player.expected) + len(player.asked)
        return Outcome([str(one) for one in player.differences], player.compared, recorded)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def played(name: str, role: str, spaces: Mapping[str, Path]) -> Outcome:
    """Play one role of a conversation by ours."""

    async def main() -> Outcome:
        async with Stage(name, role, spaces) as stage:
            return await stage.play()

    return in_virtual_time(main())


__all__ = ["HELD", "MeshError", "played"]
