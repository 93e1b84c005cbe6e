"""What the CA of a cluster keeps outside its pod, and its rotation: each step is kept before the next one."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from nsmesh.attestation.settings import AuthoritySettings
from nsmesh.core.clock import Clock
from nsmesh.core.clock_steps import clock_steps
from nsmesh.core.errors import MeshError, NotFound, TimedOut, Unavailable
from nsmesh.core.pauses import pauses
from nsmesh.kubernetes.client import Api
from nsmesh.security.ca import CertificateAuthority

log = structlog.get_logger()

MAINTENANCE = 3600.0
"""Seconds between two looks at the CA's rotation."""
PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries to keep what the CA is now."""
LONGEST_START = 5.0
"""Seconds at most between two tries to read it at the start, while nobody gets an identity."""
_CORE = "/api/v1/namespaces"


class Keeper:
    """Keeps the files of the CA in a secret, and its certificates in a config map for everybody."""

    def __init__(self, server: Api, settings: AuthoritySettings) -> None:
        self._server = server
        self._settings = settings
        self._folder = Path(settings.folder)

    async def opened(self, clock: Clock) -> CertificateAuthority:
        """Return the CA that the secret keeps; a new one where there is none. Raises MeshError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            kept = await self._server.call("GET", self._path("secrets", self._settings.secret_name))
        except NotFound:
            kept = {}
        for name, content in (kept.get("data") or {}).items():
            path = self._folder / name
            path.touch(mode=0o600)
            path.write_bytes(base64.b64decode(content))
        authority = CertificateAuthority.open(self._folder, self._settings.trust_domain, clock=clock)
        await self.keep(authority)
        return authority

    async def keep(self, authority: CertificateAuthority) -> None:
        """Write what the CA is now. Raises MeshError; before it returned, nothing may be signed."""
        files = {path.name: path for path in self._folder.iterdir() if not path.name.startswith(".")}
        data = {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()}
        await self._put(
            "secrets", {"kind": "Secret", "type": "Opaque", "data": data}, self._settings.secret_name
        )
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in authority.bundle().authorities).decode()
        await self._put(
            "configmaps", {"kind": "ConfigMap", "data": {"bundle.pem": pem}}, self._settings.bundle_name
        )

    async def _put(self, kind: str, body: dict[str, Any], name: str) -> None:
        whole = {
            "apiVersion": "v1",
            **body,
            "metadata": {"name": name, "namespace": self._settings.namespace},
        }
        try:
            await self._server.call("PUT", self._path(kind, name), body=whole)
        except NotFound:
            await self._server.call("POST", self._path(kind), body=whole)

    def _path(self, kind: str, name: str = "") -> str:
        return f"{_CORE}/{self._settings.namespace}/{kind}{'/' if name else ''}{name}"


async def opened(keeper: Keeper, clock: Clock, stop: asyncio.Event) -> CertificateAuthority:
    """Return the CA once the API server answers; raises MeshError where that refuses, or at ``stop``."""
    for pause in pauses(PAUSE, LONGEST_START):
        try:
            return await keeper.opened(clock)
        except (Unavailable, TimedOut) as error:
            if stop.is_set():
                raise
            log.warning("the CA waits for the API server", error=str(error))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
    raise AssertionError("pauses have no end")


class Rotation:
    """Takes the steps of the CA's rotation when they are due, one at a time."""

    def __init__(self, ca: CertificateAuthority, keeper: Keeper) -> None:
        self._ca = ca
        self._keeper = keeper
        self._turn = asyncio.Lock()

    async def run(self, period: float = MAINTENANCE) -> None:
        """Look now and once in ``period`` seconds, until cancelled."""
        while True:
            await self.take()
            await asyncio.sleep(period)

    async def follow(self, clock: Clock) -> None:
        """Look whenever the clock was set, or the machine has slept, until cancelled."""
        async for step in clock_steps(clock):
            log.warning("the clock was set, or the machine slept", seconds=step)
            await self.take()

    async def take(self) -> None:
        """Take the step that is due, and have it kept.

        While what signs is not valid by this clock, the next one follows at once. Else agents have time to
        learn of an authority before it signs.
        """
        async with self._turn:
            while self._ca.maintain():
                await self._kept()
                if self._ca.valid:
                    return

    async def _kept(self) -> None:
        for pause in pauses(PAUSE, LONGEST_PAUSE):
            try:
                await self._keeper.keep(self._ca)
                break
            except MeshError as error:
                log.warning("what the CA is now is not kept yet", error=str(error))
                await asyncio.sleep(pause)
