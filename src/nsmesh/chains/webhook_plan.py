"""What the settings of the admission webhook mean."""

from __future__ import annotations

from dataclasses import dataclass

from nsmesh.chains.settings_kubernetes import AdmissionWebhookSettings
from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.injection import Injection
from nsmesh.kubernetes.webhooks import Registration
from nsmesh.rpc import address

SELF, SPIRE = "selfregister", "spire"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the settings mean; made before anybody is asked for anything."""

    injection: Injection
    registration: Registration
    host: str
    port: int
    registers: bool
    files: bool

    @classmethod
    def of(cls, settings: AdmissionWebhookSettings) -> Plan:
        """Return it; raises Invalid for settings that cannot be used."""
        _check(settings)
        where = address.parse(settings.listen_on)
        injection = Injection(
            annotation=settings.annotation,
            variable=settings.nsurl_env_name,
            init_images=settings.init_container_images,
            images=settings.container_images,
            init_args=settings.init_container_args,
            args=settings.container_args,
            envs=settings.envs,
            labels=settings.labels,
            limits=_said(memory=settings.sidecar_limits_memory, cpu=settings.sidecar_limits_cpu),
            requests=_said(memory=settings.sidecar_requests_memory, cpu=settings.sidecar_requests_cpu),
            native_sidecar=settings.native_sidecars,
            started=settings.sidecar_started,
            at_start=settings.sidecar_at_start,
            silent=settings.silent,
            spire_folder=settings.spire_socket_folder,
            nsm_folder=settings.socket_folder,
            user=settings.sidecar_user,
        )
        registration = Registration(
            service=settings.service_name,
            namespace=settings.namespace,
            port=settings.service_port,
            annotation=settings.annotation,
            exempt=settings.exempt_namespaces,
            failure_policy=settings.failure_policy,
            timeout=settings.webhook_timeout,
        )
        return cls(
            injection=injection,
            registration=registration,
            host=where.host,
            port=where.port,
            registers=settings.webhook_mode.lower() == SELF,
            files=bool(settings.cert_file_path),
        )


def _said(**quantities: str) -> dict[str, str]:
    """Return the quantities that are said: an empty one is no limit, or nothing asked for."""
    return {name: quantity for name, quantity in quantities.items() if quantity}


def _check(settings: AdmissionWebhookSettings) -> None:
    if settings.webhook_mode.lower() not in {SELF, SPIRE}:
        raise Invalid(
            f"NSM_WEBHOOK_MODE is {settings.webhook_mode!r}, which is no mode",
            remedy=f"say {SELF} or {SPIRE}",
        )
    if bool(settings.cert_file_path) != bool(settings.key_file_path):
        raise Invalid(
            "of a certificate in files both are needed",
            remedy="set NSM_CERT_FILE_PATH and NSM_KEY_FILE_PATH, or neither",
        )
    spire = settings.webhook_mode.lower() == SPIRE and not settings.cert_file_path
    if spire and not settings.spiffe_endpoint_socket:
        raise Invalid(
            "the webhook has no certificate",
            remedy=f"set SPIFFE_ENDPOINT_SOCKET, NSM_CERT_FILE_PATH or NSM_WEBHOOK_MODE={SELF}",
        )
    if address.parse(settings.listen_on).unix:
        raise Invalid("API servers reach no unix socket", remedy="set NSM_LISTEN_ON to tcp://:PORT")
    if not settings.init_container_images and not settings.container_images:
        raise Invalid(
            "no container is to be added to pods",
            remedy="name a client's image with NSM_CONTAINER_IMAGES, NSM_INIT_CONTAINER_IMAGES or both",
        )
    if (settings.sidecar_started or settings.sidecar_at_start) and not settings.native_sidecars:
        raise Invalid(
            "only a native sidecar holds back the pod's own containers",
            remedy="set NSM_NATIVE_SIDECARS=true, or unset NSM_SIDECAR_STARTED and NSM_SIDECAR_AT_START",
        )
    for entry in settings.envs:
        if "=" not in entry.lstrip("="):
            raise Invalid(f"NSM_ENVS: {entry!r} sets no variable", remedy="write NAME=value")
    if settings.certificate_lifetime * 4 > settings.authority_lifetime:
        raise Invalid(
            "an authority must live four times as long as its certificates, or rotation has no time",
            remedy="choose another NSM_CERTIFICATE_LIFETIME or NSM_AUTHORITY_LIFETIME",
        )
