"""How much longer a pod with a wire takes from its creation until it is Ready, on a real two-node cluster.

Run: python bench/run.py pods. It brings the cluster of tests/kubernetes/lab up (or takes the one that runs),
and the mesh in it, with the admission webhook and the agent of the node. The same pod, as anybody would write
it, is made in turns: without an annotation, annotated (the webhook adds a client), and annotated with mode
``agent``, there with the readiness gate. So Ready means that packets can pass in all but the first. In the
same turns come pods as the webhook makes them where it is told to hold them back in one way or another: what
it makes is asked of the server before, by a dry run, and made without the annotation.

A kubelet looks once a second for containers that have ended. Pods that are made one behind the other would
all come at one moment of that second, as the one before goes when the kubelet looks; so they wait a little.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/kubernetes/cluster"))

TITLE = "a pod of Kubernetes, until it is Ready"
PLAIN = "without an annotation"
ANNOTATED = "annotated, {}"
WAYS = {
    ANNOTATED: {},
    "mode agent, {}": {"networkservicemesh.io/mode": "agent"},
}
WHERE = {"near": "a wire on its node", "far": "a wire to the other node"}
HELD = {"container": "nsc-init", "hook": "postStart", "probe": "startupProbe"}
"""Ways in which a client holds its pod back, as the chart calls them, the default first; and what is in no
other pod."""
SECOND = 1.0
"""Time between two looks of a kubelet."""
PLACE = "bench-pods"
OPTIONS = ("admissionWebhook.enabled=true", "nodeAgent.enabled=true", "nsmgr.tellPods=true")


async def ready_after(api: Any, pod: dict[str, Any]) -> float:
    """Make a pod, and return the seconds until it is Ready; it is gone afterwards."""
    from nsmesh.core.errors import NotFound  # noqa: PLC0415 - beside it
    from nsmesh.kubernetes.client import collection  # noqa: PLC0415 - an extra

    path = collection("v1", "pods", PLACE)
    name = pod["metadata"]["name"]
    began = time.perf_counter()
    made = await api.call("POST", path, body=pod)
    params = {
        "fieldSelector": f"metadata.name={name}",
        "resourceVersion": made["metadata"]["resourceVersion"],
    }
    async for _, found in api.watch(path, params, lambda: None):
        conditions = found.get("status", {}).get("conditions", ())
        if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
            break
    took = time.perf_counter() - began
    await api.call("DELETE", f"{path}/{name}", params={"gracePeriodSeconds": "1"})
    while True:
        try:
            await api.call("GET", f"{path}/{name}")
        except NotFound:
            return took
        await asyncio.sleep(0.1)


async def measure(kubeconfig: str, kinds: dict[str, dict[str, Any]], rounds: int) -> dict[str, list[float]]:
    """Make each kind of pod in turn; the first round is not counted."""
    from lightkube.config.kubeconfig import KubeConfig  # noqa: PLC0415 - an extra

    from nsmesh.kubernetes.client import connected  # noqa: PLC0415 - an extra

    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    chance = random.Random(1)
    async with connected(KubeConfig.from_file(kubeconfig).get()) as api:
        for turn in range(rounds + 1):
            for number, (kind, pod) in enumerate(kinds.items()):
                named = {**pod, "metadata": {**pod["metadata"], "name": f"pod-{turn}-{number}"}}
                await asyncio.sleep(chance.uniform(0, SECOND))
                async with asyncio.timeout(120):
                    seconds = await ready_after(api, named)
                if turn:
                    found[kind].append(seconds)
    return found


def _kinds(lab: Any) -> dict[str, dict[str, Any]]:
    """Return the pods to compare; each has the token of its service account, as by default."""
    gate = {"readinessGates": [{"conditionType": "networkservicemesh.io/wires"}]}
    kinds = {}
    for way, mode in ({"": {}} | WAYS).items():
        for service, where in WHERE.items():
            pod = lab.pod("pod", 1, lab.application(), volumes=[], **(gate if mode else {}))
            pod["spec"].pop("automountServiceAccountToken")
            if way:
                wish = {"networkservicemesh.io": f"kernel://{PLACE}-{service}/nsm-1"}
                pod["metadata"]["annotations"] = {**wish, **mode}
            kinds[way.format(where) or PLAIN] = pod
    return kinds


def _made_of(lab: Any, pod: dict[str, Any], mark: str) -> dict[str, Any]:
    """Return what becomes of an annotated pod, without the annotation: nothing more is added to it.

    It has ``mark`` in it: webhooks that were told something else may answer for some seconds yet.
    """

    def answer() -> dict[str, Any] | None:
        words = ("-n", PLACE, "create", "--dry-run=server", "-o=json", "-f", "-")
        text = lab.kubectl(*words, stdin=json.dumps(pod))
        return json.loads(text) if mark in text else None

    made = lab.until(f"{mark} in a pod", answer)
    return {**pod, "metadata": {"labels": made["metadata"]["labels"]}, "spec": made["spec"]}


def _upgrade(lab: Any, lab_mesh: Any, *settings: str) -> None:
    """Upgrade the mesh, and wait for what makes wires of annotated pods."""
    lab_mesh.upgrade(*settings)
    for kind in ("deploy/admission-webhook", "ds/nsm-node-agent"):
        lab.kubectl("-n", lab.SYSTEM, "rollout", "status", kind, "--timeout=90s")


def _measured(lab: Any, kinds: dict[str, dict[str, Any]], *, short: bool) -> dict[str, list[float]]:
    """Measure in the namespace of the control plane: only there is the API server."""
    child = subprocess.run(
        ["nsenter", f"--net=/run/netns/{lab.PREFIX}cp", sys.executable, __file__,
         str(lab.LAB / "cluster/admin.kubeconfig"), "3" if short else "20"],
        input=json.dumps(kinds), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, list[float]] = json.loads(child.stdout)
    return found


def run(*, short: bool, profiles: Path | None = None) -> Any:  # noqa: ARG001 - the face of a benchmark
    """Measure; the report says why where that cannot be done."""
    import lab_cluster as lab  # noqa: PLC0415 - it needs the path above
    import lab_mesh  # noqa: PLC0415 - likewise
    from report import Report, row  # noqa: PLC0415 - not in the child

    report = Report()
    if why := lab.missing():
        report.notes.append(f"pods: not measured: {why}")
        return report
    ours = not lab.running()
    if ours:
        lab.up()
    try:
        if "nsmesh" not in lab.helm("list", "-n", lab.SYSTEM, "-q"):
            lab_mesh.install_mesh()
        _upgrade(lab, lab_mesh, "logLevel=INFO", *OPTIONS)
        lab.kubectl("create", "namespace", PLACE)
        for node, service in ((1, "near"), (2, "far")):
            lab.create(
                PLACE, lab.responder(f"nse-{service}", node, f"172.16.{node}.0/24", f"{PLACE}-{service}")
            )
        lab.ready(PLACE, "nse-near", "nse-far")
        kinds = _kinds(lab)
        held, near = {}, ANNOTATED.format(WHERE["near"])
        for way, mark in reversed(HELD.items()):
            _upgrade(lab, lab_mesh, f"admissionWebhook.client.holdBackBy={way}")
            held[f"{near}, held back by {way}"] = _made_of(lab, kinds[near], mark)
        found = _measured(lab, kinds | held, short=short)
        report.rows += [row(TITLE, kind, seconds) for kind, seconds in found.items()]
    finally:
        lab.kubectl("delete", "namespace", PLACE, "--ignore-not-found", check=False)
        if ours:
            lab.down()
    return report


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], json.load(sys.stdin), int(sys.argv[2])))))
