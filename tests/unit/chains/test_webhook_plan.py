"""Settings of the admission webhook, and what it shows of a Workload API."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from nsmesh.chains.admission_webhook import _Svid
from nsmesh.chains.settings_kubernetes import AdmissionWebhookSettings
from nsmesh.chains.webhook_plan import Plan
from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.https import Certificate, serving
from nsmesh.kubernetes.https_session import Answer, Limits
from nsmesh.model.settings import load
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

GOOD = {"NSM_CONTAINER_IMAGES": "mesh/cmd-nsc:v1", "NSM_WEBHOOK_MODE": "SelfRegister"}
NAME = "webhook.mesh.svc"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"NSM_CONTAINER_IMAGES": ""}, "NSM_CONTAINER_IMAGES"),
        ({"NSM_WEBHOOK_MODE": "auto"}, "say selfregister or spire"),
        ({"NSM_WEBHOOK_MODE": "spire"}, "SPIFFE_ENDPOINT_SOCKET"),
        ({"NSM_CERT_FILE_PATH": "/x"}, "NSM_KEY_FILE_PATH"),
        ({"NSM_ANNOTATION": "a'b"}, "no name of an annotation"),
        ({"NSM_FAILURE_POLICY": "fail"}, "say Fail or Ignore"),
        ({"NSM_WEBHOOK_TIMEOUT": "31"}, "1 to 30 seconds"),
        ({"NSM_ENVS": "A"}, "write NAME=value"),
        ({"NSM_ENVS": "=A"}, "write NAME=value"),
        ({"NSM_LISTEN_ON": "unix:///x"}, "tcp://:PORT"),
        ({"NSM_SIDECAR_STARTED": "/usr/bin/nsm-up,@nsm-up"}, "set NSM_NATIVE_SIDECARS=true"),
        ({"NSM_SIDECAR_AT_START": "/usr/bin/nsm-up,@nsm-up"}, "set NSM_NATIVE_SIDECARS=true"),
        ({"NSM_AUTHORITY_LIFETIME": "10h", "NSM_CERTIFICATE_LIFETIME": "3h"}, "four times as long"),
    ],
)
def test_settings_that_cannot_be_used(variables, told):
    """One sentence with the variable, before anybody is asked for anything."""
    with pytest.raises(Invalid, match=told):
        Plan.of(load(AdmissionWebhookSettings, {**GOOD, **variables}))


def test_settings_reach_what_they_are_about():
    """Values stand where they belong; a mode may be written as NSM takes it."""
    variables = {
        "NSM_ENVS": "A=b=c",
        "NSM_SIDECAR_REQUESTS_CPU": "5m",
        "NSM_SERVICE_NAME": "webhook",
        "NSM_NAMESPACE": "mesh",
        "NSM_LISTEN_ON": ":8443",
    }
    plan = Plan.of(load(AdmissionWebhookSettings, {**GOOD, **variables}))
    assert plan.registers
    assert (plan.host, plan.port) == ("", 8443)
    assert plan.injection.requests == {"memory": "40Mi", "cpu": "5m"}
    assert plan.injection.envs == ("A=b=c",)
    assert plan.registration.dns_names[0] == NAME
    assert "mesh" in plan.registration.out_of_reach


def test_an_svid_is_shown_and_replaced(tmp_path):
    """A caller that trusts the bundle accepts it under the Service's name; who has no such name is told."""
    authority = CertificateAuthority.open(tmp_path / "ca", "test")

    async def ready(_request):
        return Answer(200)

    async def shaken(port: int) -> str:
        context = ssl.create_default_context(
            cadata=b"".join(one.public_bytes(Encoding.DER) for one in authority.bundle().authorities)
        )
        context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
        found = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        writer.transport.abort()
        return found

    async def main():
        first = authority.issue("spiffe://test/webhook", dns_names=(NAME,))
        source = SvidSource(first, [authority.bundle()])
        certificate = Certificate()
        svid = _Svid(source, (NAME,), certificate.show)
        async with serving("127.0.0.1", 0, certificate, ready, Limits(leaving=0.1)) as server:
            svid.take()
            source.on_rotation(svid.take)
            before = await shaken(server.port)
            assert svid.end == first.not_after
            source.update(authority.issue("spiffe://test/webhook", dns_names=(NAME,)), [authority.bundle()])
            assert await shaken(server.port) != before
            with capture_logs() as lines:
                source.update(authority.issue("spiffe://test/webhook"), [authority.bundle()])
            assert any(line.get("wanted") == NAME for line in lines)

    asyncio.run(main())


def test_an_empty_quantity_is_none():
    """No limit of the processor is no such entry, not one that the API server would refuse."""
    plan = Plan.of(load(AdmissionWebhookSettings, GOOD | {"NSM_SIDECAR_LIMITS_CPU": ""}))
    assert plan.injection.limits == {"memory": "80Mi"}
    assert plan.injection.requests == {"memory": "40Mi", "cpu": "100m"}
