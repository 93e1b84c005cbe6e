"""What a pod's user sees of its wires at the pod itself, and of Requests that are refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes_lab import until
from kubernetes_rights import proven
from pod_lab import AGENT_RULES, NSM, PodNode
from pod_process import PROC, Pod, missing, wired
from test_kubernetes_mirror import RULES

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
WISH = {"networkservicemesh.io": "kernel://ping/nsm-1", "networkservicemesh.io/mode": "agent"}
STATUS, GATE = "networkservicemesh.io/status", "networkservicemesh.io/wires"
TELLER_RULES = [
    *RULES,
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
]
"""What docs/reference/kubernetes-rbac.md says of a manager that shows wires, and tells pods of them."""


@pytest.fixture(scope="module")
def node(webhook_server) -> Iterator[PodNode]:
    """Give a node whose manager tells pods of their wires, and an agent."""
    if why := missing():
        pytest.skip(why)
    with PodNode(webhook_server) as lab:
        lab.identities()
        lab.mesh(TELLER_RULES, NSM_TELL_PODS="true")
        lab.agent = lab.node_agent()
        yield lab


def seen(node: PodNode, pod: Pod) -> dict[str, Any]:
    """Return the pod as the API server shows it."""
    return json.loads(node.server.kubectl("-n", node.app, "get", "pod", pod.name, "-o", "json"))


def told(node: PodNode, pod: Pod) -> list[dict[str, Any]]:
    """Return what its annotation says."""
    return json.loads(seen(node, pod)["metadata"]["annotations"].get(STATUS, "[]"))


def condition(node: PodNode, pod: Pod) -> dict[str, Any]:
    """Return the condition that its gate waits for."""
    conditions = seen(node, pod).get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == GATE), {})


def events(node: PodNode, pod: Pod) -> dict[str, dict[str, Any]]:
    """Return the events of a pod, by their message."""
    selector = f"--field-selector=involvedObject.uid={pod.uid}"
    items = json.loads(node.server.kubectl("-n", node.app, "get", "events", selector, "-o", "json"))["items"]
    return {item["message"]: item for item in items}


def test_a_pod_says_which_wires_it_has(node: PodNode) -> None:
    """The annotation has the form of Multus, with what the interface really has; it goes with the wire."""
    pod = node.pod(node.app, "shows", annotations=WISH)
    pod.start("sleep", "infinity")
    wired(pod)
    (item,) = until("told", lambda: told(node, pod))
    (link,) = json.loads(pod.inside("ip", "-j", "addr", "show", "dev", "nsm-1"))
    # an endpoint that leaves them open does not say MTU and MAC
    open_ones = {"mtu": link["mtu"], "mac": link["address"]}
    assert item == {
        "name": "ping",
        "interface": "nsm-1",
        "ips": [one["local"] for one in link["addr_info"] if one["family"] == "inet"],
        **{name: value for name, value in open_ones.items() if name in item},
        "dns": {},
        "default": False,
    }
    up = "wire nsm-1 to nse-1 up in "  # on a busy machine it may have told of a problem before
    (message,) = until("an event", lambda: [one for one in events(node, pod) if one.startswith(up)])
    assert message.endswith(f" ms: {item['ips'][0]}/32")
    event = events(node, pod)[message]
    assert (event["type"], event["reason"], event["count"]) == ("Normal", "WireUp", 1)
    node.server.kubectl("-n", node.app, "annotate", "--overwrite", "pod", pod.name, f"{STATUS}=by hand")
    until("put right", lambda: STATUS in seen(node, pod)["metadata"]["annotations"])
    until("put right", lambda: "nsm-1" in seen(node, pod)["metadata"]["annotations"][STATUS])
    node.server.kubectl("-n", node.app, "annotate", "pod", pod.name, "networkservicemesh.io-")
    until("nothing is said", lambda: STATUS not in seen(node, pod)["metadata"].get("annotations", {}))
    until("closed", lambda: "wire nsm-1 to nse-1 closed" in events(node, pod))
    node.delete(pod)


def test_a_gate_holds_a_pod_back(node: PodNode) -> None:
    """Only a pod that declares it has the condition, true when all wires are up, else it says what lacks."""
    gate = {"readinessGates": [{"conditionType": GATE}]}
    wish = {**WISH, "networkservicemesh.io": "kernel://ping/nsm-1,kernel://later/nsm-2"}
    pod = node.pod(node.app, "gated", annotations=wish, spec=gate)
    plain = node.pod(node.app, "open", annotations=WISH)
    lost = node.pod(node.app, "lost", annotations={**WISH, "networkservicemesh.io": "nonsense"}, spec=gate)
    for one in (pod, plain):
        one.start("sleep", "infinity")
    for one in (pod, plain):
        wired(one)
    waiting = until("one of two", lambda: (c := condition(node, pod)) and "1 of 2" in c["message"] and c)
    assert waiting["status"] == "False"
    assert waiting["message"] == "1 of 2 wires are not up: later"
    assert "has no mechanism in front" in condition(node, lost)["message"]
    assert not condition(node, plain)
    nse = node.pods[f"{node.system}/nse.icmp-responder"]
    assert nse.pid
    wish["networkservicemesh.io"] = "kernel://ping/nsm-1,kernel://ping/nsm-2"
    node.server.kubectl(
        *("-n", node.app, "annotate", "--overwrite", "pod", pod.name),
        f"networkservicemesh.io={wish['networkservicemesh.io']}",
    )
    wired(pod, "nsm-2")
    done = until("all", lambda: (c := condition(node, pod)).get("status") == "True" and c)
    assert (done["reason"], done["message"]) == ("WiresUp", "2 wires are up")
    for one in (pod, plain, lost):
        node.delete(one)


def test_a_pod_with_a_sidecar_is_told_as_well(node: PodNode) -> None:
    """The same annotation, event and condition, where a client in the pod asked for the wire."""
    client = {
        "name": "nsc",
        "image": "none",
        "env": [{"name": "NSM_NETWORK_SERVICES", "value": "kernel://ping/nsm-5"}],
    }
    gate = {"readinessGates": [{"conditionType": GATE}], "containers": [client]}
    pod = node.pod(node.app, "sidecar", spec=gate)
    pod.start(
        *(*NSM, "nsc"),
        **node.common,
        NSM_NAME="sidecar",
        NSM_CONNECT_TO=f"unix://{node.folder}/nsm.sock",
        NSM_NETWORK_SERVICES="kernel://ping/nsm-5",
    )
    wired(pod, "nsm-5")
    assert [item["interface"] for item in until("told", lambda: told(node, pod))] == ["nsm-5"]
    until("ready", lambda: condition(node, pod).get("status") == "True")
    assert any(message.startswith("wire nsm-5 to nse-1 up in") for message in events(node, pod))
    node.delete(pod)


def test_a_client_without_root_or_any_capability(node: PodNode) -> None:
    """As in a namespace whose Pod Security is restricted: its user is nobody's, and its wire is the same."""
    pod = node.pod(node.app, "strict")
    node.folder.chmod(0o711)
    pod.start(
        *("setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs"),
        *("--bounding-set=-all", "--inh-caps=-all"),
        *(*NSM, "nsc"),
        **node.common,
        NSM_NAME="strict",
        NSM_CONNECT_TO=f"unix://{node.folder}/nsm.sock",
        NSM_NETWORK_SERVICES="kernel://ping/nsm-6",
    )
    wired(pod, "nsm-6")
    status = (PROC / str(pod.pid) / "status").read_text()
    assert "\nUid:\t65532\t65532\t65532\t65532\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status
    until("told", lambda: told(node, pod))
    node.delete(pod)


def shown(node: PodNode, client: str) -> dict[str, Any]:
    """Return the wire of a client that kubectl shows."""
    items = json.loads(node.server.kubectl("-n", node.app, "get", "nsc", "-o", "json"))["items"]
    return next((item for item in items if item["spec"]["client"] == client and "status" in item), {})


def test_what_is_refused_is_shown(node: PodNode) -> None:
    """A Request for what nobody serves: kubectl says so, and why; one event, whose count grows, not many."""
    pod = node.pod(node.app, "asks", annotations={**WISH, "networkservicemesh.io": "kernel://nobody/nsm-7"})
    pod.start("sleep", "infinity")
    item = until("refused", lambda: shown(node, "asks"))
    assert item["status"]["state"] == "Refused"
    assert "nobody" in item["status"]["reason"]
    assert item["spec"]["interface"] == "nsm-7"
    assert item["metadata"]["ownerReferences"][0]["uid"] == pod.uid
    found = until("an event", lambda: events(node, pod))
    time.sleep(3)  # some ten tries more
    assert len(events(node, pod)) == len(found) == 1
    (event,) = found.values()
    assert (event["type"], event["reason"]) == ("Warning", "WireRefused")
    assert "wire nsm-7 to nobody: " in event["message"]
    node.delete(pod)


def test_a_pod_that_asks_for_what_cannot_be(node: PodNode) -> None:
    """A text that cannot be read, and wires in the node's own network: an event at the pod says so, once."""
    broken = node.pod(node.app, "broken", annotations={**WISH, "networkservicemesh.io": "kernal://ping"})
    host = node.pod(node.app, "host", annotations=WISH, spec={"hostNetwork": True})
    assert "did you mean kernel://" in "".join(until("said", lambda: events(node, broken)))
    assert "in the network of its node" in "".join(until("said", lambda: events(node, host)))
    node.server.kubectl("-n", node.app, "label", "pod", broken.name, "a=b")
    node.server.kubectl("-n", node.app, "label", "pod", host.name, "a=b")
    time.sleep(1)
    assert [one["count"] for one in events(node, broken).values()] == [1]
    node.delete(broken)
    node.delete(host)


def test_each_right_of_manager_and_agent_is_used(node: PodNode) -> None:
    """A wire that comes and goes, a namespace that asks, a refusal: none of what they may do is idle."""
    node.server.kubectl("annotate", "namespace", node.app, *(f"{key}={text}" for key, text in WISH.items()))
    gate = {"readinessGates": [{"conditionType": GATE}]}
    pod = node.pod(node.app, "rights", spec=gate)
    refused = node.pod(
        node.app, "rights-lost", annotations={**WISH, "networkservicemesh.io": "kernel://nobody/nsm-7"}
    )
    for one in (pod, refused):
        one.start("sleep", "infinity")
    wired(pod)
    until("told", lambda: told(node, pod))
    until("its count was raised", lambda: [1 for one in events(node, refused).values() if one["count"] > 1])
    node.server.kubectl("annotate", "namespace", node.app, *(f"{key}-" for key in WISH))
    until("not shown any more", lambda: not shown(node, "rights"))
    proven(node.server, "nsmgr", node.system, TELLER_RULES)
    proven(node.server, "agent", node.system, AGENT_RULES)
    for one in (pod, refused):
        node.delete(one)


def test_a_manager_that_starts_again_says_nothing_twice(node: PodNode) -> None:
    """No second event of a wire that was up all the time, and no annotation that comes and goes."""
    pod = node.pod(node.app, "calm", annotations=WISH)
    pod.start("sleep", "infinity")
    wired(pod)
    before = until("an event", lambda: events(node, pod))
    until("told", lambda: told(node, pod))
    version = seen(node, pod)["metadata"]["resourceVersion"]
    manager = node.pods[f"{node.system}/nsmgr"]
    ready = node.log("nsmgr").count("manager ready")
    manager.restart()
    until("ready", lambda: node.log("nsmgr").count("manager ready") > ready)
    until("followed", lambda: node.log("nsmgr").count("pods are told of their wires") > ready)
    time.sleep(3)
    assert events(node, pod).keys() == before.keys()
    assert seen(node, pod)["metadata"]["resourceVersion"] == version
    node.delete(pod)
