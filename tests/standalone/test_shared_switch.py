"""nsm up --switch: forwarders use the Open vSwitch that their host has already, and leave it as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from host_lab import Host
from mesh_lab import NSM, documents, responder, until
from switch_host import SOCKET, START, everything

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]
UP = ("up", "--forwarders", "ovs", "--switch", SOCKET)
SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: ping}
spec: {payload: IP}
---
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: box
  annotations: {networkservicemesh.io: kernel://ping/nsm-1}
spec: {command: [sleep, infinity]}
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with Host("host") as found:
        found.run("bash", "-c", START).ok()
        yield found


def populated(host: Host, *options: str) -> None:
    """Bring a mesh up with a wire through the switch."""
    host.nsm(*UP, *options).ok()
    host.apply(documents(responder("there", "ping", "172.30.1.0/24"), SERVICE)).ok()
    until(lambda: host.reaches("box"), 30)


@pytest.mark.parametrize("options", [(), ("--separate",)], ids=["one process", "separate"])
def test_a_mesh_uses_the_switch_and_leaves_it_as_it_was(host: Host, options: tuple[str, ...]) -> None:
    """Also one that was killed and went on; its wire was a bridge's of its own, and the audit is clean."""
    before = everything(host)
    populated(host, *options)
    assert host.run("ovs-vsctl", "list-br").ok().out.split() == ["br-nsm", "br-theirs"]
    host.kill_daemon()
    host.nsm(*UP, *options).ok()
    until(lambda: [row["state"] for row in host.get("clients")] == ["up"], 30)
    assert host.reaches("box")
    assert json.loads(host.nsm("status", "-o", "json").ok().out)["audit"] == []
    host.nsm("down", "--purge").ok()
    until(lambda: everything(host) == before, 20, lambda: everything(host))


def test_down_after_a_kill_leaves_the_switch_as_it_was(host: Host) -> None:
    """Nobody is left who knows the wires; the bridge goes by its mark."""
    before = everything(host)
    populated(host)
    host.kill_daemon()
    host.nsm("down", "--purge").ok()
    until(lambda: everything(host) == before, 20, lambda: everything(host))


def test_what_cannot_be_is_said_at_once(host: Host) -> None:
    """No ovs among the forwarders, several nodes, no such socket, and a datapath that is not there."""
    before = everything(host)
    for said, command in {
        "--switch is for forwarders with ovs": (*NSM, "up", "--switch", SOCKET),
        "and no switch of 2 nodes": (*NSM, *UP, "--nodes", "2"),
        "there is no socket /run/none.sock": (*NSM, *UP[:-1], "unix:/run/none.sock"),
        "tcp:127.0.0.1:6640 is no unix socket": (*NSM, *UP[:-1], "tcp:127.0.0.1:6640"),
        "no datapaths of type fast": ("env", "NSM_DATAPATH_TYPE=fast", *NSM, *UP),
        "a bridge br-theirs, which no forwarder has made": ("env", "NSM_BRIDGE_NAME=br-theirs", *NSM, *UP),
    }.items():
        done = host.run(*command)
        assert done.code
        assert said in done.err, done
    assert everything(host) == before
