"""The role admission-webhook-k8s, on a real API server."""

from __future__ import annotations

import json

import pytest
from kubernetes_lab import until
from kubernetes_webhook import KEY, URL, env_of, pod, webhook, workload

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
    import uuid

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
        server.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        strict = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        body = pod()
        body["spec"]["containers"][0]["securityContext"] = strict
        made = create(server, namespace, body)
        assert {"csi"} == {key for volume in made["spec"]["volumes"] for key in volume if key != "name"}
        assert one.said("patched")


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
