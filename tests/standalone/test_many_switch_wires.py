"""Many wires of interfaces by the switch of a mesh: a second switch comes, and goes with the mesh."""

from __future__ import annotations

import os
import signal

import pytest
from mesh_lab import Lab, documents, is_gone, ping, responder, until

from nsmesh.datapath import netns, ovs_programs
from nsmesh.datapath.ovs_programs import running
from nsmesh.datapath.ovs_spread import RESERVE, WIRES

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(ovs_programs.lacks_switch()), reason="Open vSwitch is not installed"),
]
BOTH = ("--forwarders", "linux,ovs")
COUNT = WIRES - RESERVE + 2
SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: by-ovs}
spec:
  payload: IP
  matches:
    - routes: [{destination_selector: {app: behind-ovs}}]
      metadata: {labels: {forwarder: ovs}}
"""
CLIENT = """
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: box
  annotations: {networkservicemesh.io: "WISHES"}
spec: {command: [sleep, infinity]}
"""


@pytest.mark.parametrize("killed", [False, True], ids=["by the book", "after a kill"])
def test_a_second_switch_is_no_leak_and_goes_with_the_mesh(killed):
    """It is started before it is needed, in namespaces that the mesh knows; down takes all of it away."""
    with Lab() as lab:
        lab.up(*BOTH)
        wishes = ",".join(f"kernel://by-ovs/nsm-{number}" for number in range(COUNT))
        endpoint = responder("behind-ovs", "by-ovs", "172.30.2.0/24")
        lab.apply(documents(SERVICE, endpoint, CLIENT.replace("WISHES", wishes))).ok()
        for number in (0, COUNT - 1):
            assert ping(f"{lab.mesh}.box", f"172.30.2.{2 * number}"), number
        folder = lab.run / "ovs" / "2"
        files = [(folder / f"{name}.pid", name) for name in ("ovs-vswitchd", "ovsdb-server")]
        until(lambda: all(running(*one) for one in files), 20)
        pids = [running(*one) for one in files]

        def spaces():
            return {
                name for name in map(os.path.basename, netns.named()) if name.startswith(f"{lab.mesh}.ovs-2")
            }

        until(lambda: spaces() == {f"{lab.mesh}.ovs-2", f"{lab.mesh}.ovs-2-ends"}, 20)
        assert lab.nsm("status", "-o", "json").ok().json()["audit"] == []
        if killed:
            pid = lab.daemon()
            os.kill(pid, signal.SIGKILL)
            until(lambda: is_gone(pid))
        lab.nsm("down").ok()
        assert all(map(is_gone, pids))
        assert lab.left() == []
