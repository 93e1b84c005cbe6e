"""What a mesh tells of a narrow underlay, and of what a wire has refused."""

import subprocess

import pytest
from mesh_lab import Lab, responder

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]

RULES = """table netdev narrow {
  chain c {
    type filter hook ingress device "DEVICE" priority 0
    meta l4proto != tcp meta length > 1300 drop
  }
}
"""
LLDP = """
import socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
wire.bind(("nsm-1", 0))
wire.send(bytes(12) + bytes.fromhex("88cc") + bytes(9))
"""
CLIENT = """
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: client
  annotations: {networkservicemesh.io: kernel://ping/nsm-1}
spec: {node: node1}
"""


def inside(space, *argv, given=None):
    command = ["ip", "netns", "exec", space, *argv]
    return subprocess.run(command, check=True, input=given, text=True, capture_output=True).stdout


def test_a_narrow_underlay_is_told_and_fits():
    """The wire has the smaller MTU; status and forwarders say by how much; what was refused is told."""
    with Lab("w") as mesh:
        mesh.up("--nodes", "2")
        space = f"{mesh.mesh}.node2"
        device = inside(space, "ip", "-o", "link", "show", "type", "veth").split()[1].partition("@")[0]
        inside(space, "nft", "-f", "-", given=RULES.replace("DEVICE", device))
        mesh.apply(responder().replace("spec:", "spec:\n  node: node2\n  payload: IP", 1)).ok()
        mesh.apply(CLIENT).ok()
        [row] = mesh.get("connections")
        assert row["mtu"] == 1250
        assert row["refused"] is None
        narrow = "1300 of 1500 bytes to 100.64.0.1"
        assert mesh.status()["underlay"] == [{"narrow": narrow}]
        told = {item["name"][-5:]: item["underlay"] for item in mesh.get("forwarders")}
        assert told == {"node1": [], "node2": [narrow]}
        subprocess.run(["ip", "netns", "exec", f"{mesh.mesh}.client", "python3", "-c", LLDP], check=False)
        assert mesh.row("connections", "client-0")["refused"] == {"other": 1}
