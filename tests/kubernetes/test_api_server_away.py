"""An API server that is away: wires go on, and who is there already gets new ones."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

import pytest
from kubernetes_lab import until
from pod_lab import NSM, PodNode
from pod_process import missing, told, wired
from test_pods_told import STATUS, TELLER_RULES, events, seen

AWAY = float(os.environ.get("NSMESH_AWAY", "15"))
"""Seconds for which it is away, and a wire more is made."""
pytestmark = [pytest.mark.root, pytest.mark.timeout(150 + 2 * AWAY)]
KEEPS = [
    {
        "apiGroups": ["networkservicemesh.io"],
        "resources": ["networkservices", "networkserviceendpoints"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
]


class LongNode(PodNode):
    """A node whose tokens live as long as by default, so that nothing ends meanwhile."""

    @property
    def common(self) -> dict[str, str]:
        """What each role is told."""
        return {**super().common, "NSM_MAX_TOKEN_LIFETIME": "600s"}


def items(node: PodNode, namespace: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return objects by their name."""
    found = json.loads(node.server.kubectl("-n", namespace, "get", kind, "-o", "json"))["items"]
    return {one["metadata"]["name"]: one for one in found}


def test_wires_while_the_api_server_is_away(own_api_server) -> None:
    """No packet is lost, a pod that is there gets one more wire at once, and what was is told then."""
    if why := missing():
        pytest.skip(why)
    with LongNode(own_api_server) as node:
        node.identities()
        node.mesh(TELLER_RULES, registry_rules=KEEPS, NSM_TELL_PODS="true")
        pod = node.pod(node.app, "app")
        client = {**node.common, "NSM_CONNECT_TO": f"unix://{node.folder}/nsm.sock"}
        pod.start(*NSM, "nsc", **client, NSM_NAME="app-1", NSM_NETWORK_SERVICES="kernel://ping/nsm-1")
        far = wired(pod)
        index = pod.index("nsm-1")
        before = until("it is registered", lambda: items(node, node.system, "nse").get("nse-1"))
        until("it is shown", lambda: items(node, node.app, "nsc"))
        stream = subprocess.Popen(
            ["nsenter", f"--net=/proc/{pod.pid}/ns/net", "ping", "-q", "-i", "0.1", far],
            stdout=subprocess.PIPE,
            text=True,
        )
        command = node.server.stop_api()
        began = time.monotonic()
        try:
            until(
                "the registry says so",
                lambda: "the view of the API server may be old" in node.log("registry-k8s"),
            )
            pod.start(
                *("nsenter", f"--net=/proc/{pod.pid}/ns/net", *NSM, "nsc"),
                own_network=False,
                **client,
                NSM_NAME="app-2",
                NSM_NETWORK_SERVICES="kernel://ping/nsm-2",
            )
            wired(pod, "nsm-2")
            asked = time.monotonic() - began
            time.sleep(max(0.0, AWAY - asked))
        finally:
            node.server.start_api(command)
            stream.send_signal(2)
            said, _ = stream.communicate(timeout=20)
        assert ", 0% packet loss" in said
        assert pod.index("nsm-1") == index
        assert items(node, node.system, "nse")["nse-1"]["metadata"]["uid"] == before["metadata"]["uid"]
        shown = until("both are shown", lambda: len(found := items(node, node.app, "nsc")) == 2 and found)
        assert {one["spec"]["interface"] for one in shown.values()} == {"nsm-1", "nsm-2"}
        until("it is told", lambda: "nsm-2" in seen(node, pod)["metadata"]["annotations"].get(STATUS, ""))
        try:
            until(
                "and that it came while nobody could be told",
                lambda: [one for one in events(node, pod) if one.startswith("wire nsm-2 to nse-1 up in ")],
                limit=60,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{events(node, pod)}\n{told(node.folder)}") from error
        assert node.log("registry-k8s").count("the view of the API server may be old") <= 2, "one each kind"
        until("and that it is back", lambda: "the API server is back" in node.log("registry-k8s"))
