"""Keeps an admission webhook called: who signs its certificates, and its registration at the API server.

Replicas share the authorities by a Secret, so that one that starts changes nothing for the others. One of
them, the holder of a lease, takes the steps of rotation and writes the registration; all of them follow.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from nsmesh.core.clock import Clock
from nsmesh.core.errors import Invalid, MeshError, NotFound
from nsmesh.kubernetes import webhooks
from nsmesh.kubernetes.client import APPLY, MERGE, Api, Changed, Object, collection
from nsmesh.kubernetes.lease import Lease
from nsmesh.kubernetes.webhooks import Registration, bundle_of
from nsmesh.security import serving
from nsmesh.security.serving import Authorities

log = structlog.get_logger()

MANAGER = "nsmesh-admission-webhook"
PERIOD = 5.0
"""Seconds between two looks, at most: a third of the lease's life."""
AGAIN = 0.1
_CONFIGURATIONS = collection(webhooks.GROUP, webhooks.PLURAL)


class Bundles(Protocol):
    """Where the bundle comes from, and the certificate that is shown."""

    async def bundle(self, trusted: str, *, leads: bool) -> str:
        """Take the step that is due, and return what API servers shall trust; empty while nobody knows.

        ``trusted``: what they trust now.
        """
        ...

    def follow(self, trusted: str) -> str:
        """Show a certificate that API servers trust; return why there is none, or nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Lives:
    """How long authorities and certificates live, seconds."""

    authority: float
    certificate: float


class OwnAuthorities:
    """Authorities of our own, in the Secret ``name``."""

    def __init__(
        self,
        api: Api,
        registration: Registration,
        name: str,
        clock: Clock,
        lives: Lives,
        show: Callable[[bytes], None],
    ) -> None:
        self._api = api
        self._names = registration.dns_names
        self._secrets = collection("v1", "secrets", registration.namespace)
        self._name = name
        self._clock = clock
        self._lives = lives
        self._show = show
        self._held: Authorities | None = None
        self._shown: tuple[str, float, float] = ("", 0.0, 0.0)
        """Who signed what is shown (PEM), when it is due, when it ends."""

    @property
    def end(self) -> float:
        """Wall time at which the certificate that is shown ends; 0: none is."""
        return self._shown[2]

    async def bundle(self, trusted: str, *, leads: bool) -> str:
        """See :class:`Bundles`."""
        version, held = await self._read()
        if leads:
            lives = self._lives
            after = serving.due(held, self._clock.now(), lives.authority, lives.certificate, trusted)
            if after is not held:
                await self._write(after, version)
                log.info(
                    "authorities changed", prepared=after.next is not None, former=after.former is not None
                )
                held = after
        self._held = held
        return held.pem if held else ""

    def follow(self, trusted: str) -> str:
        """See :class:`Bundles`."""
        now, (issuer, due, end) = self._clock.now(), self._shown
        signer = self._held.signer if self._held else None
        if signer is not None:
            pem = serving.pem_of(signer.certificate)
            if pem in trusted and (pem != issuer or now >= due):
                found, end = serving.issue(signer, self._names, now, self._lives.certificate)
                self._show(found)
                issuer, due = pem, now + (end - now) / 2
                self._shown = (issuer, due, end)
                log.info("certificate issued", names=self._names, seconds=round(end - now))
        if not issuer or issuer not in trusted:
            return "no certificate that API servers trust yet"
        return "" if now < end else "the certificate has ended"

    async def _read(self) -> tuple[str, Authorities | None]:
        """Return the Secret's version and what is in it; nothing where it is not there or damaged."""
        try:
            found = await self._api.call("GET", f"{self._secrets}/{self._name}")
        except NotFound:
            return "", None
        version: str = found["metadata"]["resourceVersion"]
        files = {name: base64.b64decode(text) for name, text in (found.get("data") or {}).items()}
        if not files:  # made empty by somebody, for us to fill
            return version, None
        try:
            return version, serving.load(files)
        except Invalid as error:
            log.warning("a Secret is damaged, authorities are made anew", name=self._name, error=str(error))
            return version, None

    async def _write(self, after: Authorities, version: str) -> None:
        metadata = {"name": self._name, **({"resourceVersion": version} if version else {})}
        body: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": metadata,
            "data": {name: base64.b64encode(one).decode() for name, one in serving.dump(after).items()},
        }
        path = f"{self._secrets}/{self._name}" if version else self._secrets
        await self._api.call("PUT" if version else "POST", path, body=body)


class Keeper:
    """Keeps the registration ``name`` true. ``run`` goes on until it is cancelled."""

    def __init__(
        self,
        api: Api,
        registration: Registration,
        name: str,
        bundles: Bundles,
        lease: Lease,
        annotated: Callable[[], frozenset[str] | None],
        *,
        period: float = PERIOD,
    ) -> None:
        self._api = api
        self._registration = registration
        self._name = name
        self._bundles = bundles
        self._lease = lease
        self._annotated = annotated
        self._period = period
        self._news = asyncio.Event()
        self._trouble = ""
        self._trusted = ""
        self.leads = False
        self.lacking = "not registered yet"
        """Why API servers cannot call us, or nothing."""

    def wake(self) -> None:
        """Look at once: something changed."""
        self._news.set()

    async def run(self) -> None:
        """Look whenever something changed, and every few seconds."""
        while True:
            self._news.clear()
            pause = self._period
            try:
                await self._step()
                self._well()
            except Changed:
                pause = AGAIN  # somebody else was faster: look what there is now
            except MeshError as error:
                self._ill(str(error))
            if self._trusted:
                self.lacking = self._bundles.follow(self._trusted)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def end(self, *, unregister: bool) -> None:
        """Give the lease up, and remove the registration before where ``unregister`` says so."""
        if unregister and self.leads:
            try:
                await self._api.call("DELETE", f"{_CONFIGURATIONS}/{self._name}")
                log.info("unregistered", name=self._name)
            except MeshError as error:
                log.warning("not unregistered", name=self._name, error=str(error))
        await self._lease.release()

    async def _step(self) -> None:
        """Do what is due."""
        self.leads = await self._lease.hold()
        try:
            found = await self._api.call("GET", f"{_CONFIGURATIONS}/{self._name}")
        except NotFound:
            found = {}
        self._trusted = bundle_of(found)
        bundle = await self._bundles.bundle(self._trusted, leads=self.leads)
        annotated = self._annotated()
        if not self.leads or not bundle or annotated is None:
            return
        wanted = webhooks.webhooks(self._registration, bundle, annotated)
        if found.get("webhooks") != wanted:
            self._trusted = bundle_of(await self._write(found, wanted))
            log.info("registered", name=self._name, namespaces=sorted(annotated))

    async def _write(self, found: Object, wanted: list[Object]) -> Object:
        path = f"{_CONFIGURATIONS}/{self._name}"
        if not found:
            body = {
                "apiVersion": webhooks.GROUP,
                "kind": webhooks.KIND,
                "metadata": {"name": self._name},
                "webhooks": wanted,
            }
            # An apply may be allowed for one name, a POST only for all.
            params = {"fieldManager": MANAGER}
            return await self._api.call("PATCH", path, body=body, params=params, content_type=APPLY)
        # The whole list is ours: what an older one, or NSM's own webhook, left there would patch as well.
        body = {
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "webhooks": wanted,
        }
        params = {"fieldManager": MANAGER}
        return await self._api.call("PATCH", path, body=body, params=params, content_type=MERGE)

    def _well(self) -> None:
        if self._trouble:
            log.info("the registration is looked after again", name=self._name)
        self._trouble = ""

    def _ill(self, error: str) -> None:
        if error != self._trouble:
            log.warning("the registration is not looked after", name=self._name, error=error)
        self._trouble = error
