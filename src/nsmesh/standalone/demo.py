"""The demonstration: a company's client, a firewall, a VPN gateway, and a corporate site behind a tunnel.

Nothing in it is played: namespaces, wires, rules, tunnel and web server are real, and each claim on the
screen is measured when it is printed. What is applied is in ``examples/secure-intranet``.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import nsmesh
from nsmesh.core.errors import Internal, NotFound, Refused
from nsmesh.datapath import netns
from nsmesh.endpoints.capture import capturing
from nsmesh.standalone.paths import MeshPaths

SITE = "10.20.0.1"
"""Address of the corporate web server, behind the tunnel."""
MARKER = "corporate intranet"
"""Text on the pages that must not be seen on the outer link."""

Say = Callable[[str], None]
Apply = Callable[[Path], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Proof:
    """One claim, measured. ``seen`` is what was measured, as text."""

    claim: str
    holds: bool
    seen: str


def scenarios() -> dict[str, Path]:
    """Return the scenarios by name: those of the package, or of the checkout that it runs from."""
    package = Path(nsmesh.__file__).parent
    for folder in (package / "scenarios", package.parents[1] / "examples"):
        if folder.is_dir():
            return {path.name: path for path in sorted(folder.iterdir()) if (path / "demo.txt").is_file()}
    return {}


def scenario(name: str) -> Path:
    """Return the folder of a scenario; raises NotFound with what there is."""
    known = scenarios()
    if name not in known:
        raise NotFound(f"there is no demo {name}", remedy=f"there are: {', '.join(known) or 'none'}")
    return known[name]


def ping(namespace: str, address: str, count: int = 5) -> tuple[bool, str]:
    """Ping from a namespace; return whether all came back, and loss and round trip times as text."""

    def start() -> subprocess.Popen[str]:
        argv = ["ping", "-n", "-c", str(count), "-i", "0.1", "-W", "2", address]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    text, _ = netns.call_in(namespace, start).communicate(timeout=5 + 2 * count)
    loss = re.search(r"([\d.]+)% packet loss", text)
    times = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)", text)
    if loss is None:
        return False, text.strip().splitlines()[-1] if text.strip() else "ping said nothing"
    seen = f"{count} sent, {loss[1]} % lost"
    if times:
        seen += f", round trip min {times[1]} avg {times[2]} max {times[3]} ms"
    return float(loss[1]) == 0, seen


def fetch(namespace: str, address: str, port: int, timeout: float = 3.0) -> tuple[bool, str]:
    """Fetch a page from inside a namespace; return whether it came, and what came or why not."""

    def get() -> tuple[bool, str]:
        # the socket belongs to the namespace in which it is made
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
        except OSError as error:
            sock.close()
            return False, (error.strerror or str(error)).lower()
        connection = http.client.HTTPConnection(address, port, timeout=timeout)
        connection.sock = sock
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            return answer.status == 200, f"{answer.status} {answer.read().decode().strip()}"
        except (OSError, http.client.HTTPException) as error:
            return False, str(error)
        finally:
            connection.close()

    return netns.call_in(namespace, get)


class Demo:
    """One run of the secure intranet. ``say`` prints a line; ``apply`` applies a file to the mesh."""

    def __init__(self, paths: MeshPaths, folder: Path, say: Say, apply: Apply) -> None:
        self.paths = paths
        self.folder = folder
        self.say = say
        self.apply = apply
        self.proofs: list[Proof] = []

    def _space(self, name: str) -> str:
        return f"{netns.RUN_NETNS}/{self.paths.netns(name)}"

    def _prove(self, claim: str, seen: str, *, holds: bool) -> None:
        self.proofs.append(Proof(claim, holds, seen))
        self.say(f"  {'ok' if holds else 'NO'}  {claim}: {seen}")

    async def first_ping(self) -> None:
        """Ping until the first answer; raises Internal when none comes in 5 s."""
        for _ in range(25):
            fine, _seen = await asyncio.to_thread(ping, self._space("client"), SITE, 1)
            if fine:
                return
        raise Internal("the client's pings are not answered", remedy="see: nsm --mesh demo logs")

    async def through_the_firewall(self) -> None:
        """Prove what the firewall lets pass, and that the outer link carries nothing in clear text."""
        client = self._space("client")
        async with capturing("eth0", location=self._space("vpn-gateway"), markers=[MARKER]) as report:
            fine, seen = await asyncio.to_thread(ping, client, SITE)
            self._prove(f"ping {SITE} from the client", seen, holds=fine)
            fine, seen = await asyncio.to_thread(fetch, client, SITE, 8080)
            self._prove("page from the intranet on port 8080", seen, holds=fine and MARKER in seen)
            fine, seen = await asyncio.to_thread(fetch, client, SITE, 80)
            self._prove("port 80 refused by the firewall", seen, holds=not fine and "refused" in seen)
            await asyncio.sleep(0.1)
        classes = ", ".join(f"{count} x {name}" for name, count in sorted(report.classes.items()))
        self._prove("the outer link carries WireGuard only", classes, holds=not report.others)
        self._prove(
            "nothing in clear text on it",
            f"'{MARKER}' in {report.markers[MARKER]} of {report.frames} frames, {report.dropped} dropped",
            holds=not report.clear and not report.dropped and report.frames > 0,
        )

    async def without_the_firewall(self) -> None:
        """Prove that the next connection goes to the gateway directly."""
        client = self._space("client")
        fine, seen = False, ""
        for _ in range(30):
            fine, seen = await asyncio.to_thread(fetch, client, SITE, 80)
            if fine:
                break
            await asyncio.sleep(0.1)
        self._prove("port 80 answers now", seen, holds=fine and MARKER in seen)
        fine, seen = await asyncio.to_thread(ping, client, SITE)
        self._prove(f"ping {SITE} from the client", seen, holds=fine)

    def verdict(self) -> None:
        """Raise Refused when a claim did not hold."""
        failed = [proof.claim for proof in self.proofs if not proof.holds]
        if failed:
            raise Refused(f"{len(failed)} claims did not hold: {'; '.join(failed)}")
