"""The role admission-webhook-k8s, on a real API server."""

from __future__ import annotations

import json
import time
import uuid

import pytest
from kubernetes_lab import until
from kubernetes_webhook import CONFIGURATIONS, KEY, URL, documented, env_of, pod, webhook, workload

pytestmark = pytest.mark.timeout(120)

KINDS = ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet")


def create(server, namespace, body, *options) -> dict:
    """Make an object, and return it as the server has it."""
    text = server.kubectl("create", "-n", namespace, *options, "-o=json", "-f", "-", stdin=json.dumps(body))
    return json.loads(text)


def refused(server, namespace, body) -> str:
    """Return why an object cannot be made."""
    text = server.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(body), check=False)
    assert "created" not in text, text
    return text


@pytest.fixture
def namespace(webhook_server):
    """Give a namespace for the test's objects."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    webhook_server.kubectl("create", "namespace", name)
    yield name
    webhook_server.kubectl("delete", "namespace", name, "--wait=false")


def test_every_kind_is_patched_by_the_real_server(webhook_server, namespace, tmp_path):
    """Pods, templates of four workloads; a namespace's annotation; restricted pods; what is left alone."""
    server = webhook_server
    with webhook(server, namespace, tmp_path) as (where, one):
        made = create(server, namespace, pod())
        check(made["spec"], made["metadata"], URL)
        for kind in KINDS:
            made = create(server, namespace, workload(kind))["spec"]["template"]
            check(made["spec"], made["metadata"], URL)
            text = server.kubectl(
                "create",
                "-n",
                namespace,
                "-f",
                "-",
                stdin=json.dumps(workload(kind, template={"a": "b"})),
                check=False,
            )
            assert "created" in text
            assert "its template has annotations of its own" in text
        assert len(create(server, namespace, pod(None))["spec"]["containers"]) == 1
        assert (
            len(
                create(server, namespace, workload("Deployment", None))["spec"]["template"]["spec"][
                    "containers"
                ]
            )
            == 1
        )
        by_agent = workload("Deployment")
        by_agent["metadata"]["annotations"][f"{KEY}/mode"] = "agent"
        made = create(server, namespace, by_agent)["spec"]["template"]
        assert made["metadata"]["annotations"] == {KEY: URL, f"{KEY}/mode": "agent"}
        assert len(made["spec"]["containers"]) == 1
        server.kubectl("annotate", "namespace", namespace, f"{KEY}=kernel://of-the-namespace")
        made = create(server, namespace, pod(None))
        check(made["spec"], made["metadata"], "kernel://of-the-namespace")
        until("it is known", lambda: namespace in json.dumps(where.configuration()))
        made = create(server, namespace, pod(None))
        check(made["spec"], made["metadata"], "kernel://of-the-namespace")
        check(create(server, namespace, pod())["spec"], made["metadata"], URL)
        assert (
            len(
                create(server, namespace, workload("Deployment", None))["spec"]["template"]["spec"][
                    "containers"
                ]
            )
            == 1
        )
        server.kubectl("annotate", "namespace", namespace, f"{KEY}-")
        assert len(create(server, namespace, pod(None))["spec"]["containers"]) == 1
        assert one.said("patched")


def test_pod_security(webhook_server, namespace, tmp_path):
    """Restricted pods are refused while they could never start, and taken by the server once they can."""
    server = webhook_server
    with webhook(server, namespace, tmp_path):
        server.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        strict = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        body = pod()
        body["spec"]["containers"][0]["securityContext"] = strict
        told = refused(server, namespace, body)
        assert "no csi.spiffe.io and no csi.networkservicemesh.io" in told
        assert "networkservicemesh.io/mode: agent" in told
        server.kubectl("create", "-f", "-", stdin=json.dumps(driver("csi.spiffe.io", "Ephemeral")))
        server.kubectl(
            "create", "-f", "-", stdin=json.dumps(driver("csi.networkservicemesh.io", "Persistent"))
        )
        try:
            until(
                "one is seen, and the other of no use",
                lambda: "has no csi.networkservicemesh.io" in refused(server, namespace, body),
            )
            server.kubectl("delete", "csidriver", "csi.networkservicemesh.io")
            server.kubectl(
                "create", "-f", "-", stdin=json.dumps(driver("csi.networkservicemesh.io", "Ephemeral"))
            )
            dry = ("create", "-n", namespace, "--dry-run=server", "-f", "-")
            until(
                "both are seen",
                lambda: "created" in server.kubectl(*dry, stdin=json.dumps(body), check=False),
            )
            made = create(server, namespace, body)
        finally:
            server.kubectl("delete", "csidriver", "csi.spiffe.io", "csi.networkservicemesh.io")
        assert {"csi"} == {key for volume in made["spec"]["volumes"] for key in volume if key != "name"}
        client = made["spec"]["containers"][-1]
        assert client["securityContext"] == {**strict, "runAsUser": 65532}


def driver(name, *modes):
    """Return the object of a CSI driver."""
    meta = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": name}}
    return {**meta, "spec": {"attachRequired": False, "volumeLifecycleModes": list(modes)}}


def check(spec, metadata, value):
    """Say whether a pod has what it should have."""
    assert [item["name"] for item in spec["initContainers"]] == ["cmd-nsc-init"]
    assert [item["name"] for item in spec["containers"]] == ["app", "cmd-nsc"]
    for item in (spec["initContainers"][0], spec["containers"][1]):
        assert env_of(item)["NSM_NETWORK_SERVICES"] == value
        assert item["resources"]["limits"] == {"cpu": "200m", "memory": "80Mi"}
    assert {volume["hostPath"]["path"] for volume in spec["volumes"]} == {
        "/run/spire/sockets",
        "/var/lib/networkservicemesh",
    }
    assert metadata["labels"]["spiffe.io/spiffe-id"] == "true"


@pytest.mark.parametrize("silent", [False, True])
def test_a_bad_annotation(webhook_server, namespace, tmp_path, silent):
    """It is refused with its mistake, of a pod, a template, a namespace; silently it is put in as it is."""
    server = webhook_server
    options = {"NSM_SILENT": str(silent).lower(), "NSM_NATIVE_SIDECARS": "true"}
    with webhook(server, namespace, tmp_path, **options) as (_, one):
        bad = "kernel://a,kernl://b"
        if silent:
            made = create(server, namespace, pod(bad))
            assert env_of(made["spec"]["initContainers"][1])["NSM_NETWORK_SERVICES"] == bad
        else:
            for body in (pod(bad), workload("DaemonSet", bad)):
                why = refused(server, namespace, body)
                assert f"annotation {KEY}: '{bad}'" in why
                assert "character 12: the mechanism 'kernl' is unknown" in why
                assert "did you mean kernel://" in why
            run = ("run", "web", "--image=nginx", "-n", namespace)
            said = server.kubectl(*run, f"--annotations={KEY}=kernl://icmp-responder", check=False)
            assert " ".join(said.split()) == documented("kubectl run web"), "as the how-to shows it"
            server.kubectl("annotate", "namespace", namespace, f"{KEY}=kernel://")
            assert f"namespace '{namespace}'" in refused(server, namespace, pod(None))
            assert {line["kind"] for line in one.said("refused")} == {"Pod", "DaemonSet"}
        body = pod()
        body["spec"]["containers"].append({"name": "cmd-nsc", "image": "other"})
        assert "container 'cmd-nsc' of its own" in refused(server, namespace, body)
        native = create(server, namespace, pod())["spec"]
        assert [(item["name"], item.get("restartPolicy")) for item in native["initContainers"]] == [
            ("cmd-nsc-init", None),
            ("cmd-nsc", "Always"),
        ]
        assert len(native["containers"]) == 1


def test_while_the_webhook_is_away(webhook_server, namespace, tmp_path):
    """Who asked for wires is refused, and nobody else: a node can start without the mesh."""
    server = webhook_server
    places = {"its own": "", "kube-system": "kube-system", "labelled": f"l-{namespace}"}
    server.kubectl("create", "namespace", "kube-system", check=False)
    server.kubectl("create", "namespace", places["labelled"])
    server.kubectl("label", "namespace", places["labelled"], "networkservicemesh.io/webhook=disabled")
    server.kubectl("annotate", "namespace", namespace, f"{KEY}={URL}")
    with webhook(server, namespace, tmp_path) as (where, one):
        places["its own"] = where.namespace
        until("the namespace is known", lambda: namespace in json.dumps(where.configuration()))
        for place in places.values():
            assert len(create(server, place, pod())["spec"]["containers"]) == 1
        one.kill()
        begun = time.monotonic()
        for place in places.values():
            assert len(create(server, place, pod())["spec"]["containers"]) == 1
        assert len(create(server, "default", pod(None))["spec"]["containers"]) == 1
        labelled = pod()
        labelled["metadata"]["labels"] = {"networkservicemesh.io/webhook": "disabled"}
        assert len(create(server, "default", labelled)["spec"]["containers"]) == 1
        assert time.monotonic() - begun < 20
        for place, body in (("default", pod()), (namespace, pod(None)), (namespace, workload("Deployment"))):
            assert "failed calling webhook" in refused(server, place, body)
    server.kubectl("delete", "namespace", places["labelled"], "--wait=false")


def test_another_failure_policy(webhook_server, namespace, tmp_path):
    """With Ignore an annotated pod is made without wires, while the webhook is away."""
    with webhook(webhook_server, namespace, tmp_path, NSM_FAILURE_POLICY="Ignore") as (_, one):
        one.kill()
        assert len(create(webhook_server, namespace, pod())["spec"]["containers"]) == 1


def test_the_registration_is_kept_true(webhook_server, namespace, tmp_path):
    """What others change or delete comes back, with what they added gone; it goes at the end where asked."""
    server = webhook_server
    options = {"NSM_UNREGISTER_ITSELF": "true", "NSM_CERTIFICATE_LIFETIME": "5s"}
    with webhook(server, namespace, tmp_path, **options) as (where, one):
        before = where.configuration()["webhooks"]
        other = [{**before[0], "name": "old.example.org", "failurePolicy": "Ignore"}]
        change = {"webhooks": [{**before[0], "failurePolicy": "Ignore"}, *other]}
        server.kubectl("patch", CONFIGURATIONS, where.name, "--type=merge", "-p", json.dumps(change))
        until("it is as before", lambda: where.configuration()["webhooks"] == before)
        server.kubectl("delete", CONFIGURATIONS, where.name)
        until("it is there again", lambda: "NotFound" not in gone(server, where.name))
        where.effective(namespace)
        server.kubectl("delete", "secret", "-n", where.namespace, "admission-webhook-k8s")
        until("others sign", lambda: where.configuration()["webhooks"][0] != before[0])
        where.effective(namespace)
        one.end()
        assert "NotFound" in gone(server, where.name)


def test_the_api_server_starts_again(webhook_server, namespace, tmp_path):
    """The webhook stays, keeps its certificate, and follows namespaces and its registration as before."""
    server = webhook_server
    with webhook(server, namespace, tmp_path, NSM_CERTIFICATE_LIFETIME="20s") as (where, one):
        before = where.configuration()["webhooks"]
        server.start_api(server.stop_api())
        where.effective(namespace)
        assert one.process.poll() is None
        assert where.configuration()["webhooks"] == before
        server.kubectl("annotate", "namespace", namespace, f"{KEY}={URL}")
        until("the namespace is known", lambda: namespace in json.dumps(where.configuration()), 60)
        assert len(create(server, namespace, pod(None))["spec"]["containers"]) == 2


def gone(server, name) -> str:
    """Return what is said of a configuration."""
    return server.kubectl("get", CONFIGURATIONS, name, check=False)
