"""Certificates of admission-webhook-k8s and its replicas, on a real API server that makes pods meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from urllib.request import urlopen

import pytest
from kubernetes_lab import until
from kubernetes_stores import api_of
from kubernetes_webhook import Balancer, free_port, mesh, pod, replica

from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core.errors import MeshError
from nsmesh.kubernetes.client import collection
from nsmesh.kubernetes.webhooks import Registration, webhooks
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import Entries, Entry
from nsmesh.security.serving import issue, make_signer, pem_of
from nsmesh.security.workload_api import WorkloadApi

pytestmark = pytest.mark.timeout(120)

LIFE = 12
"""Seconds that an authority lives: its successor is prepared after 6, and active after 9."""


async def create(api, path, failed: list[str]) -> float:
    """Make an annotated pod; returns the seconds it took."""
    begun = time.monotonic()
    try:
        made = await api.call("POST", path, body=pod())
    except MeshError as error:
        failed.append(str(error))
    else:
        if len(made["spec"]["containers"]) != 2:
            failed.append(f"{made['metadata']['name']} has no client")
    return time.monotonic() - begun


def created(server, namespace, going) -> tuple[list[float], list[str]]:
    """Make pods one after the other while ``going`` says so; returns the times, and what failed."""

    async def main():
        times, failed = [], []
        path = collection("v1", "pods", namespace)
        async with api_of(server) as api:
            while going():
                times.append(await create(api, path, failed))
                await asyncio.sleep(0.02)
        return times, failed

    return asyncio.run(main())


@contextmanager
def balanced(server, folder, count, **settings):
    """Run replicas behind one Service; gives where they are registered, them, and the balancer."""
    ports = [free_port() for _ in range(count)]
    balancer = Balancer(ports)
    with ExitStack() as stack:
        stack.callback(balancer.close)
        where = stack.enter_context(mesh(server, balancer.port))
        replicas = [stack.enter_context(replica(where, folder, port, **settings)) for port in ports]
        for one in replicas:  # a Service leads to none that is not ready
            until("it is ready", lambda one=one: one.said("certificate issued"))
        yield where, replicas, balancer


@pytest.fixture
def namespace(webhook_server):
    """Give a namespace for the test's objects."""
    name = f"t-{time.time_ns() % 10**9:x}"
    webhook_server.kubectl("create", "namespace", name)
    yield name
    webhook_server.kubectl("delete", "namespace", name, "--wait=false")


def bundle(where) -> list[str]:
    """Return the certificates that API servers trust."""
    found = where.configuration()["webhooks"][0]["clientConfig"]["caBundle"]
    pems = base64.b64decode(found).decode().split("-----END CERTIFICATE-----\n")
    return [pem for pem in pems if pem]


def test_rotation_while_pods_are_made(webhook_server, namespace, tmp_path):
    """Authorities and certificates change several times under two replicas, and no pod is refused for it."""
    lives = {"NSM_AUTHORITY_LIFETIME": f"{LIFE}s", "NSM_CERTIFICATE_LIFETIME": "3s"}
    with balanced(webhook_server, tmp_path, 2, **lives) as (where, replicas, balancer):
        where.effective(namespace)
        first = bundle(where)
        end = time.monotonic() + LIFE + 4

        def going():
            balancer.forget()  # API servers keep connections: let them shake hands anew
            return time.monotonic() < end

        _, failed = created(webhook_server, namespace, going)
        assert not failed
        assert not set(first) & set(bundle(where)), "the first authority is retired"
        assert all(balancer.served.values()), "both replicas were called"
        assert all(len(one.said("certificate issued")) >= 5 for one in replicas)
        changes = [len(one.said("authorities changed")) for one in replicas]
        assert min(changes) == 0, "one of them leads"
        assert max(changes) >= 4, "made, prepared, active, retired"


def test_a_replica_goes_and_another_comes(webhook_server, namespace, tmp_path):
    """No pod is refused while one ends by the book, and the one that starts changes nothing for the other."""
    with balanced(webhook_server, tmp_path, 2) as (where, (first, _), balancer):
        where.effective(namespace)
        before = bundle(where)
        first.process.terminate()
        _, failed = created(webhook_server, namespace, lambda: first.process.poll() is None)
        assert not failed
        assert first.process.returncode == 0
        with replica(where, tmp_path, first.port) as third:
            until("it is ready", lambda: third.said("certificate issued"))
            end = time.monotonic() + 2
            balancer.forget()
            _, failed = created(webhook_server, namespace, lambda: time.monotonic() < end)
            assert not failed
            assert bundle(where) == before


def test_five_hundred_pods(webhook_server, namespace, tmp_path):
    """Twenty at a time, all of them with wires; each is counted, and told to Prometheus."""
    address = f"127.0.0.1:{free_port()}"
    options = {"PROMETHEUS": "true", "NSM_PROMETHEUS_LISTEN_ON": address}
    with balanced(webhook_server, tmp_path, 1, **options) as (where, (one,), _):
        where.effective(namespace)

        async def main():
            failed: list[str] = []
            path = collection("v1", "pods", namespace)
            async with api_of(webhook_server) as api:
                turns = asyncio.Semaphore(20)

                async def turn():
                    async with turns:
                        return await create(api, path, failed)

                times = await asyncio.gather(*(turn() for _ in range(500)))
            return times, failed

        times, failed = asyncio.run(main())
        assert not failed
        assert len(one.said("patched")) >= 500
        assert len(times) == 500
        with urlopen(f"http://{address}/metrics", timeout=5) as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
        assert float(lines['nsm_webhook_reviews_total{outcome="patched"}']) == len(one.said("patched"))
        assert float(lines["nsm_webhook_seconds_count"]) >= 500
        assert float(lines["nsm_webhook_certificate_end_seconds"]) > time.time()


def test_certificates_of_files(webhook_server, namespace, tmp_path):
    """A pair that is replaced is shown, with its authorities registered; halves of a pair change nothing."""
    signer, other = make_signer(time.time(), 3600), make_signer(time.time(), 3600)
    files = {name: tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")}
    names = {
        "NSM_CERT_FILE_PATH": str(files["tls.crt"]),
        "NSM_KEY_FILE_PATH": str(files["tls.key"]),
        "NSM_CA_BUNDLE_FILE_PATH": str(files["ca.crt"]),
        "NSM_CERTIFICATE_LIFETIME": "5s",
    }
    with mesh(webhook_server, port := free_port()) as where:

        def give(who, *which):
            pem = issue(who, [f"webhook.{where.namespace}.svc"], time.time(), 600)[0].decode()
            certificate, _, key = pem.partition("-----BEGIN PRIVATE KEY-----")
            texts = {
                "tls.crt": certificate,
                "tls.key": f"-----BEGIN PRIVATE KEY-----{key}",
                "ca.crt": pem_of(signer.certificate) + pem_of(other.certificate),
            }
            for name in which:
                files[name].write_text(texts[name])

        give(signer, *files)
        with replica(where, tmp_path, port, **names) as one:
            where.effective(namespace)
            give(other, "tls.key")
            until("the mismatch is told", lambda: one.said("a certificate cannot be used"))
            where.effective(namespace)
            give(other, "tls.crt", "tls.key")
            until("it is shown", lambda: len(one.said("certificate read")) == 2)
            where.effective(namespace)


class Spire(CertificateAuthority):
    """Gives its SVIDs a DNS name, as SPIRE does where an entry has one."""

    name = ""

    async def svid(self, spiffe_id, ttl):
        return self.issue(spiffe_id, ttl, dns_names=(self.name,))


@contextmanager
def workload_api(authority, url):
    """Serve a Workload API in a thread of its own; its SVIDs live ten seconds."""
    everybody = Entry(frozenset({f"unix:uid:{os.geteuid()}"}), "spiffe://test/webhook", 10.0)
    ready, over = Event(), Event()

    async def main():
        async with served_workload_api(WorkloadApi(authority, Entries(everybody)), url):
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        over.set()
        thread.join()


def test_certificates_of_a_workload_api(webhook_server, namespace, tmp_path):
    """The SVID is shown, and the next one when it comes; somebody else registers the webhook."""
    url, port = f"unix://{tmp_path}/agent.sock", free_port()
    authority = Spire.open(tmp_path / "ca", "test")
    options = {"NSM_WEBHOOK_MODE": "spire", "SPIFFE_ENDPOINT_SOCKET": url}
    with mesh(webhook_server, port) as where, workload_api(authority, url):
        registration = Registration("webhook", where.namespace, port)
        authority.name = registration.dns_names[0]
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": where.name},
            "webhooks": webhooks(registration, "".join(map(pem_of, authority.bundle().authorities)), ()),
        }
        webhook_server.kubectl("create", "-f", "-", stdin=json.dumps(configuration))
        with replica(where, tmp_path, port, **options) as one:
            where.effective(namespace)
            until("a second SVID", lambda: len(one.said("SVID received")) > 1)
            where.effective(namespace)
            assert not one.said("API servers will not accept the SVID: it is not for the name of the Service")
