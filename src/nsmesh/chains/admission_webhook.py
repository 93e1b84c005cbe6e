"""Gives wires to annotated pods of a cluster: the admission webhook."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from cryptography import x509

from nsmesh.chains.settings_kubernetes import AdmissionWebhookSettings
from nsmesh.chains.webhook_plan import Plan
from nsmesh.chains.workload_client import fetched_identity
from nsmesh.core.metrics import Gauge
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import Api, connected
from nsmesh.kubernetes.drivers import Drivers
from nsmesh.kubernetes.https import Certificate, HttpsServer, serving
from nsmesh.kubernetes.lease import Lease
from nsmesh.kubernetes.namespaces import PATH, Namespaces
from nsmesh.kubernetes.reflector import Reflector
from nsmesh.kubernetes.reviewing import Reviewer
from nsmesh.kubernetes.webhook_files import FileCertificate
from nsmesh.kubernetes.webhook_keeper import PERIOD, Keeper, Lives, OwnAuthorities
from nsmesh.security.svid import SvidSource

log = structlog.get_logger()

LEASE = "nsmesh-admission-webhook"
LOOK = 2.0
"""Seconds between two looks at the files of a certificate."""
END = Gauge(
    "nsm_webhook_certificate_end_seconds", "When the certificate that is shown ends, since the epoch."
)


class Shown(Protocol):
    """The certificate that is shown."""

    @property
    def end(self) -> float:
        """Wall time at which it ends; 0: none is shown."""
        ...


class _Svid:
    """The SVID of a Workload API as the certificate; its names have to be those of the Service."""

    def __init__(self, source: SvidSource, names: tuple[str, ...], show: Callable[[bytes], None]) -> None:
        self._source = source
        self._names = names
        self._show = show
        self.end = 0.0

    def take(self) -> None:
        """Show the current one."""
        svid = self._source.svid
        self._show(svid.pem())
        self.end = svid.not_after
        leaf = x509.load_der_x509_certificate(svid.chain[0])
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            held = names.get_values_for_type(x509.DNSName)
        except x509.ExtensionNotFound:
            held = []
        if self._names[0] not in held:
            log.warning(
                "API servers will not accept the SVID: it is not for the name of the Service",
                wanted=self._names[0],
                names=held,
                remedy="give the workload's entry that DNS name, or use NSM_WEBHOOK_MODE=selfregister",
            )


@asynccontextmanager
async def _registering(
    settings: AdmissionWebhookSettings,
    plan: Plan,
    api: Api,
    scope: Scope,
    certificate: Certificate,
    namespaces: Namespaces,
) -> AsyncIterator[tuple[Callable[[], str], Shown]]:
    """Keep the registration, and a certificate that it vouches for; gives what is lacking."""
    lives = Lives(settings.authority_lifetime, settings.certificate_lifetime)
    bundles: OwnAuthorities | FileCertificate
    if plan.files:
        bundles = _files(settings, certificate)
    else:
        name = settings.secret_name
        bundles = OwnAuthorities(api, plan.registration, name, scope.clock, lives, certificate.show)
    identity = f"{os.uname().nodename}-{uuid.uuid4().hex[:8]}"
    lease = Lease(api, settings.namespace, LEASE, identity, scope.clock)
    keeper = Keeper(
        api,
        plan.registration,
        settings.name,
        bundles,
        lease,
        lambda: namespaces.annotated,
        period=min(PERIOD, settings.certificate_lifetime / 10),
    )
    namespaces.tell = keeper.wake
    task = scope.spawn(keeper.run(), name="registration")
    try:
        yield lambda: keeper.lacking, bundles
    finally:
        task.cancel()
        await keeper.end(unregister=settings.unregister_itself)


def _files(settings: AdmissionWebhookSettings, certificate: Certificate) -> FileCertificate:
    return FileCertificate(
        settings.cert_file_path, settings.key_file_path, settings.ca_bundle_file_path, certificate.show
    )


@asynccontextmanager
async def _filed(
    settings: AdmissionWebhookSettings, scope: Scope, certificate: Certificate
) -> AsyncIterator[tuple[Callable[[], str], Shown]]:
    """Show the certificate of files, whoever registers the webhook."""
    files = _files(settings, certificate)

    async def look() -> None:
        while True:
            files.follow()
            await asyncio.sleep(LOOK)

    scope.spawn(look(), name="certificate files")
    yield files.follow, files


@asynccontextmanager
async def _identified(
    settings: AdmissionWebhookSettings, plan: Plan, certificate: Certificate
) -> AsyncIterator[tuple[Callable[[], str], Shown]]:
    """Show the SVID of the Workload API, whoever registers the webhook."""
    async with fetched_identity(settings.spiffe_endpoint_socket) as source:
        svid = _Svid(source, plan.registration.dns_names, certificate.show)
        svid.take()
        forget = source.on_rotation(svid.take)
        try:
            yield lambda: "" if time.time() < svid.end else "the SVID has ended", svid
        finally:
            forget()


@asynccontextmanager
async def running_admission_webhook(settings: AdmissionWebhookSettings) -> AsyncIterator[HttpsServer]:
    """Serve the webhook while the block runs; it is ready once API servers can call it."""
    plan = Plan.of(settings)
    certificate = Certificate()
    async with connected(rate=settings.kubelet_qps) as api, Scope("admission webhook") as scope:
        namespaces = Namespaces(api, settings.annotation, scope)
        if plan.registers:
            showing = _registering(settings, plan, api, scope, certificate, namespaces)
        elif plan.files:
            showing = _filed(settings, scope, certificate)
        else:
            showing = _identified(settings, plan, certificate)
        async with showing as (lacking, shown):
            drivers = Drivers(api, scope.clock)
            reviewer = Reviewer(plan.injection, namespaces.read, lacking, drivers.there)
            async with serving(plan.host, plan.port, certificate, reviewer) as server:
                scope.spawn(Reflector(api, PATH, namespaces).run(), name="watch namespaces")
                log.info("admission webhook serves", port=server.port, registers=plan.registers)
                with END.reading(lambda: {(): shown.end}):
                    yield server


async def serve_admission_webhook(settings: AdmissionWebhookSettings, stop: asyncio.Event) -> None:
    """Serve the webhook until ``stop``."""
    async with running_admission_webhook(settings):
        await stop.wait()
