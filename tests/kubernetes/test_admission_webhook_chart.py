"""The admission webhook as the chart runs it: with its settings, its objects, and the rights it gives."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import yaml
from kubernetes_lab import LAB, PROJECT
from kubernetes_rights import proven
from kubernetes_webhook import URL, Mesh, env_of, free_port, pod, replica

pytestmark = pytest.mark.timeout(120)

NAME = "nsm-mutating-webhook"
INIT = {
    "NSM_INIT_CONTAINER_IMAGES": "localhost/nsmesh/nsm:latest",
    "NSM_INIT_CONTAINER_ARGS": "run,nsc-init",
}
KINDS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount", "Secret")


def rendered(namespace: str, *options: str) -> list[dict]:
    """Return what the chart makes."""
    program = LAB / "bin/helm"
    if not program.exists():
        pytest.skip(f"helm is not built: no {program}")
    command = [program, "template", "nsmesh", PROJECT / "deploy/helm", "-n", namespace]
    made = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    return [item for item in yaml.safe_load_all(made.stdout) if item]


@pytest.fixture
def namespace(webhook_server):
    """Give the namespace of a mesh; nothing of it is left."""
    name = f"c-{free_port()}"
    webhook_server.kubectl("create", "namespace", name)
    yield name
    webhook_server.kubectl("delete", "mutatingwebhookconfigurations", NAME, "--ignore-not-found")
    for kind in ("clusterrole", "clusterrolebinding"):
        webhook_server.kubectl("delete", kind, "nsm-admission-webhook", "--ignore-not-found")
    webhook_server.kubectl("delete", "namespace", name, "--wait=false")


def test_the_webhook_needs_what_the_chart_gives(webhook_server, namespace, tmp_path):
    """It registers and patches, as an init container that waits and one that stays; each right is used."""
    server, port = webhook_server, free_port()
    items = rendered(namespace, "--set=admissionWebhook.enabled=true")
    ours = [
        item for item in items if "admission-webhook" in item["metadata"]["name"] and item["kind"] in KINDS
    ]
    assert {item["kind"] for item in ours} == set(KINDS)
    (configuration,) = [item for item in items if item["kind"] == "MutatingWebhookConfiguration"]
    (deployment,) = [
        item
        for item in items
        if item["kind"] == "Deployment" and item["metadata"]["name"] == "admission-webhook"
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "admission-webhook-svc", "namespace": namespace},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    whole = {"apiVersion": "v1", "kind": "List", "items": [configuration, *ours, service]}
    server.kubectl("apply", "-f", "-", stdin=json.dumps(whole))
    token = server.kubectl("-n", namespace, "create", "token", "admission-webhook").strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    settings = env_of(deployment["spec"]["template"]["spec"]["containers"][0])
    here = {
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "NSM_NAMESPACE": namespace,
        "NSM_LISTEN_ON": f"tcp://127.0.0.1:{port}",
        "NSM_SERVICE_PORT": str(port),
    }
    where = Mesh(server, namespace, NAME, port)
    with replica(where, tmp_path, port, **{**settings, **here}) as one:
        where.effective("default")
        text = server.kubectl("create", "--dry-run=server", "-o=json", "-f", "-", stdin=json.dumps(pod()))
        spec = json.loads(text)["spec"]
        assert [(item["name"], item.get("restartPolicy")) for item in spec["initContainers"]] == [
            ("nsc-init", None),
            ("nsc", "Always"),
        ]
        assert spec["initContainers"][1]["args"] == ["run", "nsc"]
        assert env_of(spec["initContainers"][1])["NSM_NETWORK_SERVICES"] == URL
        server.kubectl("apply", "-f", "-", stdin=json.dumps(whole))
        assert where.configuration()["webhooks"], "an upgrade of the chart takes no registration away"
        assert where.patched("default")
        other = f"{namespace}-strict"
        server.kubectl("create", "namespace", other)
        server.kubectl("label", "namespace", other, "pod-security.kubernetes.io/enforce=restricted")
        text = server.kubectl(
            "create", "-n", other, "--dry-run=server", "-f", "-", stdin=json.dumps(pod()), check=False
        )
        server.kubectl("delete", "namespace", other, "--wait=false")
        assert "would never start" in text
        assert not one.said("the registration is not looked after")
        assert not one.said("the view of the API server may be old")
        assert "unknown here" not in one.log.read_text()
    rules = [rule for item in ours for rule in item.get("rules", ())]
    proven(server, "admission-webhook", namespace, rules)
    who = f"--as=system:serviceaccount:{namespace}:admission-webhook"
    for verb, what, where_ in (
        ("create", "mutatingwebhookconfigurations", "default"),
        ("patch", "mutatingwebhookconfigurations/other", "default"),
        ("get", "secrets/nsm-ca", namespace),
        ("create", "secrets", namespace),
        ("list", "pods", "default"),
    ):
        assert server.kubectl("auth", "can-i", verb, what, who, "-n", where_, check=False).startswith("no")


def test_the_chart_is_taken_by_a_real_server(webhook_server, namespace):
    """Every object of webhook and policies is valid, and the policies are those of the file."""
    options = ("--set=admissionWebhook.enabled=true", "--set=networkServicePolicies.create=true")
    items = rendered(namespace, *options)
    names = ("admission-webhook", "networkservices", NAME)
    ours = [item for item in items if item["metadata"]["name"].startswith((*names, "nsm-admission-webhook"))]
    text = webhook_server.kubectl(
        "create",
        "--dry-run=server",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": ours}),
    )
    assert text.count("created") == len(ours) == 15, text
    policies = list(yaml.safe_load_all((PROJECT / "deploy/helm/policies/networkservices.yaml").read_text()))
    assert [item for item in ours if "Validating" in item["kind"]] == sorted(
        policies, key=lambda item: [i["kind"] for i in ours].index(item["kind"])
    )
    off = rendered(namespace)
    assert not [item for item in off if item["metadata"]["name"].startswith(names)]


def test_the_manifest_is_in_step_with_the_chart():
    """Without Helm the webhook is added by a file, which is what the chart gives."""
    program = LAB / "bin/helm"
    if not program.exists():
        pytest.skip(f"helm is not built: no {program}")
    command = [PROJECT / "deploy/helm/render.sh", "webhook"]
    environment = {**os.environ, "HELM": str(program)}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert made.stdout == (PROJECT / "deploy/manifests/admission-webhook.yaml").read_text()


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("holdBackBy=hook", {"NSM_SIDECAR_AT_START": "/usr/bin/nsm-up,@nsm-up,30"}),
        ("holdBackBy=probe", {"NSM_SIDECAR_STARTED": "/usr/bin/nsm-up,@nsm-up,25"}),
        ("holdBackBy=container", INIT),
        ("holdBackBy=hook,admissionWebhook.client.nativeSidecar=false", INIT),
        ("holdBackBy=nothing", {}),
    ],
)
def test_something_else_may_hold_pods_back(settings, found):
    """One way at a time; an ordinary container cannot, and has another one in front of it."""
    items = rendered("x", "--set=admissionWebhook.enabled=true", f"--set=admissionWebhook.client.{settings}")
    (pod,) = [
        item["spec"]["template"]["spec"]
        for item in items
        if item["kind"] == "Deployment" and item["metadata"]["name"] == "admission-webhook"
    ]
    told = env_of(pod["containers"][0])
    ways = ("NSM_INIT", "NSM_SIDECAR_STARTED", "NSM_SIDECAR_AT_START")
    assert {name: value for name, value in told.items() if name.startswith(ways)} == found
    assert ("NSM_UP_SOCKET=@nsm-up" in told["NSM_ENVS"]) == ("@nsm-up" in str(found))


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("admissionWebhook.failurePolicy=fail", "failurePolicy"),
        ("admissionWebhook.timeoutSeconds=60", "timeoutSeconds"),
        ("admissionWebhook.exemptNamespaces={Kube}", "exemptNamespaces"),
        ("admissionWebhook.client.resources.limits.memory=lots", "memory"),
        ("admissionWebhook.client.holdBackBy=true", "holdBackBy"),
        ("networkServicePolicies.enabled=true", "enabled"),
    ],
)
def test_a_wrong_value_is_refused(setting, named):
    """The schema names the value that it refuses, before anything reaches a cluster."""
    with pytest.raises(subprocess.CalledProcessError) as found:
        rendered("x", "--set", setting)
    assert named in found.value.stderr
