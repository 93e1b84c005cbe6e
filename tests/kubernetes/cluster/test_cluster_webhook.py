"""Pods that are annotated, and get their wires by the admission webhook of the chart."""

from __future__ import annotations

import json
from typing import Any

import lab_cluster as lab
import lab_mesh
import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

KEY = "networkservicemesh.io"


@pytest.fixture(scope="module")
def webhook(mesh: None) -> None:
    """Turn it on, by helm upgrade; it stays on afterwards."""
    lab_mesh.upgrade("admissionWebhook.enabled=true")
    lab.kubectl("-n", lab.SYSTEM, "rollout", "status", "deploy/admission-webhook", "--timeout=90s")


def spec(*containers: dict[str, Any], node: int = 1, **fields: Any) -> dict[str, Any]:
    """Return the pod of somebody who knows nothing of a mesh."""
    return {
        "nodeName": f"node{node}",
        "terminationGracePeriodSeconds": 2,
        "automountServiceAccountToken": False,
        "containers": list(containers) or [lab.application()],
        **fields,
    }


def made(namespace: str, kind: str, name: str, **fields: Any) -> None:
    """Make an object whose own metadata, or template, carries annotations."""
    group = {"Pod": "v1", "Job": "batch/v1"}.get(kind, "apps/v1")
    meta = {"name": name, "annotations": fields.pop("annotations", {})}
    lab.create(namespace, {"apiVersion": group, "kind": kind, "metadata": meta, **fields})


def test_annotated_things_get_wires(namespace: str, webhook: None) -> None:
    """A pod, a Deployment on another node, a pod of an annotated namespace: each pings."""
    service = f"icmp-{namespace}"
    lab.create(namespace, lab.responder("nse", 1, "172.16.7.0/28", service))
    lab.ready(namespace, "nse")
    url = f"kernel://{service}/nsm-1"
    made(namespace, "Pod", "one", annotations={KEY: url}, spec=spec())
    labels = {"app": "many"}
    template = {"metadata": {"labels": labels}, "spec": spec(node=2)}
    body = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    made(namespace, "Deployment", "many", annotations={KEY: url}, spec=body)
    lab.kubectl("annotate", "namespace", namespace, f"{KEY}={url}")
    made(namespace, "Pod", "inherits", spec=spec())
    lab.kubectl("-n", namespace, "rollout", "status", "deploy/many", "--timeout=90s")
    many = lab.objects("pod", "-n", namespace, "-l", "app=many")["items"][0]["metadata"]["name"]
    pods = ("one", many, "inherits")
    lab.ready(namespace, *pods, limit=90)
    for one in pods:
        # the endpoint has an address for each of its clients, and a client's only route leads there
        route = lab.inside(namespace, one, "ip", "route", "show", "dev", "nsm-1").split()[0]
        assert route.startswith("172.16.7.")
        lab.until(f"the ping of {one}", lambda one=one, to=route: lab.pings(namespace, one, to), 10)


def test_a_job_has_its_wire_before_it_starts_and_completes(namespace: str, webhook: None) -> None:
    """The client waits for the wire, stays beside the job, and ends with it."""
    service = f"icmp-{namespace}"
    lab.create(namespace, lab.responder("nse", 1, "172.16.7.16/28", service))
    lab.ready(namespace, "nse")
    work = {**lab.application(), "command": ["ip", "address", "show", "nsm-1"]}
    template = {
        "metadata": {"annotations": {KEY: f"kernel://{service}/nsm-1"}},
        "spec": spec(work, restartPolicy="Never"),
    }
    made(namespace, "Job", "once", spec={"backoffLimit": 0, "template": template})
    lab.kubectl("-n", namespace, "wait", "--for=condition=Complete", "job/once", "--timeout=90s")
    assert "172.16.7." in lab.kubectl("-n", namespace, "logs", "job/once", "-c", "app")


@pytest.mark.parametrize("way", ["hook", "probe"])
def test_a_client_alone_holds_its_pod_back(namespace: str, webhook: None, way: str) -> None:
    """One container more, not two: a job has its wire from the start; without one a pod waits, and can go."""
    before = lab_mesh.revision()
    lab_mesh.upgrade(f"admissionWebhook.client.holdBackBy={way}")
    lab.kubectl("-n", lab.SYSTEM, "rollout", "status", "deploy/admission-webhook", "--timeout=90s")
    try:
        service = f"icmp-{namespace}"
        work = {**lab.application(), "command": ["ip", "address", "show", "nsm-1"]}
        annotations = {KEY: f"kernel://{service}/nsm-1"}
        template = {"metadata": {"annotations": annotations}, "spec": spec(work, restartPolicy="Never")}
        made(namespace, "Job", "once", spec={"backoffLimit": 0, "template": template})
        made(namespace, "Pod", "never", annotations={KEY: "kernel://nobody/nsm-1"}, spec=spec())

        def asks() -> bool:
            words = ("-n", namespace, "logs", "never", "-c", "nsc")
            said = lab.kubectl(*words, check=False) + lab.kubectl(*words, "-p", check=False)
            return "request failed" in said

        def given_up() -> bool:
            chosen = "--field-selector=reason=FailedPostStartHook,involvedObject.name=never"
            return bool(lab.objects("events", "-n", namespace, chosen)["items"])

        if way == "hook":  # there is no log before
            lab.until("the kubelet says that the hook has failed", given_up, 120)
        lab.until("its log says what was refused", asks, 120)
        status = lab.objects("pod", "-n", namespace, "never")["status"]
        assert [one["name"] for one in status["initContainerStatuses"]] == ["nsc"]
        assert all("waiting" in one["state"] for one in status["containerStatuses"])
        lab.kubectl("-n", namespace, "delete", "pod", "never", "--timeout=120s")
        lab.create(namespace, lab.responder("nse", 1, "172.16.7.32/28", service))
        lab.kubectl("-n", namespace, "wait", "--for=condition=Complete", "job/once", "--timeout=150s")
        assert "172.16.7." in lab.kubectl("-n", namespace, "logs", "job/once", "-c", "app")
    finally:
        lab.helm("rollback", "nsmesh", str(before), "-n", lab.SYSTEM)
        lab_mesh.wait_for_mesh()
        lab.kubectl("-n", lab.SYSTEM, "rollout", "status", "deploy/admission-webhook", "--timeout=90s")


def test_a_mistake_is_refused_and_others_are_made(namespace: str, webhook: None) -> None:
    """It is told where the annotation is wrong; while no replica runs, only annotated pods wait."""
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad", "annotations": {KEY: "kernel//x"}}}
    text = json.dumps({**bad, "spec": spec()})
    with pytest.raises(AssertionError, match="has no mechanism in front"):
        lab.kubectl("-n", namespace, "apply", "-f", "-", stdin=text)
    lab.kubectl("-n", lab.SYSTEM, "scale", "deploy/admission-webhook", "--replicas=0")
    gone = ("pod", "-n", lab.SYSTEM, "-l", "app=admission-webhook")
    try:
        lab.until("no replica runs", lambda: not lab.objects(*gone)["items"])
        made(namespace, "Pod", "plain", spec=spec())
        lab.ready(namespace, "plain")
        with pytest.raises(AssertionError, match="failed calling webhook"):
            made(namespace, "Pod", "annotated", annotations={KEY: "kernel://a"}, spec=spec())
    finally:
        lab.kubectl("-n", lab.SYSTEM, "scale", "deploy/admission-webhook", "--replicas=2")
        lab.kubectl("-n", lab.SYSTEM, "rollout", "status", "deploy/admission-webhook", "--timeout=90s")
