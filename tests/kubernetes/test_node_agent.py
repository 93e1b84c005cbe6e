"""Pods without a client of their own: the node's agent makes their wires, in their name."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_lab import until
from pod_lab import PodNode
from pod_process import Pod, missing, pings, told, wired
from test_kubernetes_mirror import RULES

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
TEXT = {"networkservicemesh.io": "kernel://ping/nsm-1"}
WISH = {**TEXT, "networkservicemesh.io/mode": "agent"}


@pytest.fixture(scope="module")
def node(webhook_server) -> Iterator[PodNode]:
    """Give a node with a mesh, and an agent; the API server is its own."""
    if why := missing():
        pytest.skip(why)
    with PodNode(webhook_server) as lab:
        lab.identities()
        lab.mesh(RULES)
        lab.agent = lab.node_agent()
        yield lab


def running(node: PodNode, name: str, **metadata) -> Pod:
    """Give a pod with a process in a network of its own."""
    pod = node.pod(node.app, name, **{"annotations": WISH, **metadata})
    pod.start("sleep", "infinity")
    return pod


def settled(node: PodNode, pod: Pod) -> str:
    """Wait for the wire of a pod, and until its agent was answered: packets pass a moment before."""
    far = wired(pod)
    name = f'"connection": "{pod.name}-{pod.uid[:8]}-0", "endpoint"'
    until("the agent knows", lambda: name in node.log("nsm-node-agent-1"))
    return far


def shown(node: PodNode) -> dict[str, dict]:
    """Return the wires that the API server shows in the pods' namespace, by client."""
    items = json.loads(node.server.kubectl("-n", node.app, "get", "nsc", "-o", "json"))["items"]
    return {item["spec"]["client"]: item for item in items}


def test_a_pod_gets_its_wire_in_its_own_name(node: PodNode) -> None:
    """Nothing in the pod but a program that sleeps; it is the pod that the manager knows as its client."""
    pod = running(node, "plain")
    wired(pod)
    found = until("shown", lambda: shown(node).get("plain"))
    assert found["spec"]["interface"] == "nsm-1"
    assert found["metadata"]["ownerReferences"][0]["uid"] == pod.uid
    assert f"spiffe://cluster.nsmesh/ns/{node.app}/pod/plain" in node.log("authority")
    node.delete(pod)


def test_a_pod_that_goes_leaves_nothing(node: PodNode) -> None:
    """Its wire is closed, its journal removed; the same name in a new pod is a new wire."""
    pod = running(node, "passing")
    far = wired(pod)
    nse = node.pods[f"{node.system}/nse.icmp-responder"]
    assert far in nse.inside("ip", "-4", "addr")
    before = set(Path(node.folder / "pods").iterdir())
    assert {path.name.split(".")[0] for path in before} >= {pod.uid}
    node.delete(pod)
    until("the endpoint has no wire", lambda: far not in nse.inside("ip", "-4", "addr"))
    until("it is shown no more", lambda: "passing" not in shown(node))
    until("no file", lambda: not list((node.folder / "pods").glob(f"*{pod.uid}*")))
    again = running(node, "passing")
    wired(again)
    node.delete(again)


def test_an_agent_that_is_killed_touches_no_wire(node: PodNode) -> None:
    """A new one goes on: the same interface, no lost packet, and it closes what its predecessor made."""
    pod = running(node, "kept")
    far = settled(node, pod)
    index = pod.index("nsm-1")
    stream = subprocess.Popen(
        ["nsenter", f"--net=/proc/{pod.pid}/ns/net", "ping", "-i", "0.01", "-q", far],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        node.agent.kill()
        node.agent.wait()
        lines = node.log("nsm-node-agent-1").count("all wires are up")
        node.agent = node.node_agent()
        until("it goes on", lambda: node.log("nsm-node-agent-1").count("all wires are up") > lines)
        node.agent.terminate()
        assert node.agent.wait(10) == 0
        node.agent = node.node_agent()
        until("it goes on", lambda: node.log("nsm-node-agent-1").count("all wires are up") > lines + 1)
    finally:
        stream.send_signal(2)
        said = stream.communicate(timeout=10)[0]
    assert " 0% packet loss" in said, f"{said}\n{told(node.folder)}"
    assert pod.index("nsm-1") == index
    node.delete(pod)
    nse = node.pods[f"{node.system}/nse.icmp-responder"]
    until("closed", lambda: far not in nse.inside("ip", "-4", "addr"))


def test_roles_that_are_killed_touch_no_wire(node: PodNode) -> None:
    """The manager, the forwarder: their successors go on with the same interface."""
    pod = running(node, "firm")
    far = settled(node, pod)
    index = pod.index("nsm-1")
    for role, ready in (("nsmgr", "manager ready"), ("forwarder", "forwarder ready")):
        before = node.log(role).count(ready)
        healed = node.log("nsm-node-agent-1").count('"healed"')
        node.pods[f"{node.system}/{role}"].restart()
        until("ready", lambda role=role, ready=ready, n=before: node.log(role).count(ready) > n)
        until("healed", lambda n=healed: node.log("nsm-node-agent-1").count('"healed"') > n)
        assert pings(pod, far)
        assert pod.index("nsm-1") == index
    node.delete(pod)


def test_an_agent_that_starts_before_its_manager(node: PodNode) -> None:
    """Both were killed, and the manager comes back last: the wire is taken up as it is, no packet is lost."""
    pod = running(node, "early")
    far = settled(node, pod)
    stream = subprocess.Popen(
        ["nsenter", f"--net=/proc/{pod.pid}/ns/net", "ping", "-i", "0.01", "-q", far],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        manager = node.pods[f"{node.system}/nsmgr"]
        node.agent.kill()
        node.agent.wait()
        manager.stop()
        before = node.log("nsm-node-agent-1")
        node.agent = node.node_agent()
        until(
            "it cannot",
            lambda: node.log("nsm-node-agent-1").count("request failed") > before.count("request failed"),
        )
        manager.again()
        until(
            "it goes on",
            lambda: node.log("nsm-node-agent-1").count("all wires are up") > before.count("all wires are up"),
        )
    finally:
        stream.send_signal(2)
        said = stream.communicate(timeout=10)[0]
    assert " 0% packet loss" in said, f"{said}\n{told(node.folder)}"
    assert '"restored": true' in node.log("nsm-node-agent-1")[len(before) :]
    node.delete(pod)


def test_what_an_earlier_agent_kept_of_a_pod_that_is_gone(node: PodNode) -> None:
    """A pod that went while no agent ran: its journal is removed, others' wires stay."""
    gone, stays = running(node, "gone"), running(node, "stays")
    settled(node, gone)
    settled(node, stays)
    index = stays.index("nsm-1")
    node.agent.kill()
    node.agent.wait()
    node.delete(gone)
    node.agent = node.node_agent()
    until("no file", lambda: not list((node.folder / "pods").glob(f"*{gone.uid}*")))
    assert stays.index("nsm-1") == index
    node.delete(stays)


def test_a_process_that_is_not_in_its_network_yet(node: PodNode) -> None:
    """A runtime puts a process into the pod's cgroup first: nothing is made in the network it is in then."""
    pod = node.pod(node.app, "slow", annotations=WISH)
    before = node.log("nsm-node-agent-1").count("pod found")
    pod.start("sh", "-c", "sleep 2; exec unshare --net sleep infinity", own_network=False)
    time.sleep(1)
    assert node.log("nsm-node-agent-1").count("pod found") == before
    until("its own", lambda: not Path(f"/proc/{pod.pid}/ns/net").samefile("/proc/self/ns/net"))
    wired(pod)
    assert not Path("/sys/class/net/nsm-1").exists()
    node.delete(pod)


def test_a_pod_whose_network_is_made_anew(node: PodNode) -> None:
    """A sandbox that died: its successor of the same pod gets a wire of its own."""
    pod = running(node, "reborn")
    far = wired(pod)
    pod.kill()
    nse = node.pods[f"{node.system}/nse.icmp-responder"]
    until("closed", lambda: far not in nse.inside("ip", "-4", "addr"))
    pod.start("sleep", "infinity")
    wired(pod)
    node.delete(pod)


def test_pods_that_are_not_its_business(node: PodNode) -> None:
    """A pod with a client, one that asks for none, and what cannot be: no wire, and the reason in the log."""
    client = {"name": "nsc", "image": "none", "env": [{"name": "NSM_NETWORK_SERVICES", "value": "x"}]}
    left = [
        running(node, "sidecar", annotations=TEXT),
        running(node, "client", spec={"containers": [client]}),
        running(node, "broken", annotations={**WISH, "networkservicemesh.io": "ping/nsm-1"}),
        running(node, "odd", annotations={**WISH, "networkservicemesh.io/mode": "magic"}),
        running(node, "host", spec={"hostNetwork": True}),
    ]
    last = running(node, "last")
    wired(last)
    log = node.log("nsm-node-agent-1")
    for pod in left:
        assert not pod.addresses("nsm-1"), pod.name
    assert "has no mechanism in front" in log
    assert "is 'magic'" in log
    assert "in the network of its node" in log
    for pod in (*left, last):
        node.delete(pod)


def test_a_namespace_gives_wires_to_its_pods(node: PodNode) -> None:
    """Its annotations hold for pods without any of their own; when it loses them, the wires go."""
    words = [f"{name}={value}" for name, value in WISH.items()]
    node.server.kubectl("annotate", "namespace", node.app, *words)
    try:
        pod = running(node, "heir", annotations={})
        wired(pod)
    finally:
        node.server.kubectl("annotate", "namespace", node.app, *(f"{name}-" for name in WISH))
    until("closed", lambda: not pod.addresses("nsm-1"))
    node.delete(pod)


def test_while_the_api_server_is_away(node: PodNode) -> None:
    """Wires stay, and who keeps them may be asked; what is made meanwhile gets its wire afterwards."""
    pod = running(node, "steady")
    far = settled(node, pod)
    index = pod.index("nsm-1")
    command = node.server.stop_api()
    try:
        assert pings(pod, far, "-i", "0.1", "-c", "5")
    finally:
        node.server.start_api(command)
    late = running(node, "late")
    wired(late)
    assert pod.index("nsm-1") == index
    for one in (pod, late):
        node.delete(one)


ASK = """
import asyncio, sys
from nsmesh import rpc
from nsmesh.api import delegated_pb2
from nsmesh.chains.delegated_client import BUNDLES, SVIDS
from nsmesh.core.errors import MeshError
async def main(url, pid):
    client = await rpc.connect(url)
    for method, body in ((SVIDS, delegated_pb2.SubscribeToX509SVIDsRequest(pid=pid)), (BUNDLES, None)):
        stream = client.stream(method, body.SerializeToString() if body else b"")
        try:
            async for _ in stream:
                print("given")
                break
        except MeshError as error:
            print(error)
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def ask(node: PodNode, caller: Pod, pid: int) -> str:
    """Ask for the identity of a process from within a pod; return what was said."""
    begun = len(caller.log.read_text()) if caller.log.exists() else 0
    url = f"unix://{node.folder}/admin/agent.sock"
    process = caller.start(sys.executable, "-c", ASK, url, str(pid), own_network=False)
    assert process.wait(30) == 0, caller.log.read_text()
    return caller.log.read_text()[begun:]


def test_who_gets_the_identity_of_a_pod(node: PodNode) -> None:
    """The agent's pod alone, and nothing of the mesh's own namespace, of no pod, of another node."""
    pod = running(node, "victim")
    agent = node.pods[f"{node.system}/nsm-node-agent-1"]
    assert ask(node, pod, pod.pid).count("may not act for others") == 2
    assert ask(node, agent, pod.pid).split() == ["given", "given"]
    manager = node.pods[f"{node.system}/nsmgr"]
    assert "is of the mesh itself" in ask(node, agent, manager.pid)
    assert "of no pod of this node" in ask(node, agent, 1)
    node.delete(pod)
