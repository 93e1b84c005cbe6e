"""A pod that may administer its own network, and tries to point its tunnel elsewhere."""

import asyncio
import subprocess
from pathlib import Path

import pytest
import tunnel_lab
import vxlan_lab

from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.linux import LinuxDatapath

pytestmark = pytest.mark.root

ELSEWHERE = "192.0.2.99"
TRIES = (
    f"bridge fdb append 00:00:00:00:00:00 dev nsm-1 dst {ELSEWHERE}",
    f"ip link set nsm-1 type vxlan id {{vni}} remote {ELSEWHERE}",
)


def as_the_pod(pod, command):
    """Run a command in the pod with CAP_NET_ADMIN and no other capability; say whether it was obeyed."""
    only = ["--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin"]
    argv = ["ip", "netns", "exec", Path(pod).name, "setpriv", *only, *command.split()]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def destinations(pod):
    """Return the kernel's list of where devices of a pod send frames."""
    argv = ["bridge", "-n", Path(pod).name, "fdb", "show"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def tries(driver):
    """Make a wire, have the pod on its first node try; return what was obeyed, its use, and a ping."""

    async def main(found):
        wires = tunnel_lab.wires(found, "VXLAN")
        drivers = [driver(node=found.a, owner="a"), driver(node=found.b, owner="b")]
        for one, wire in zip(drivers, wires, strict=True):
            await one.apply(wire)
        obeyed = [as_the_pod(found.pod_a, line.format(vni=wires[0].b.vni)) for line in TRIES]
        elsewhere = ELSEWHERE in destinations(found.pod_a)
        reached = vxlan_lab.pings(found.pod_a, "10.0.1.2")
        for one in drivers:
            await one.aclose()
        return obeyed, elsewhere, reached

    with vxlan_lab.nodes() as found:
        return asyncio.run(main(found))


def test_a_tunnel_in_the_pod_is_the_pods_to_point():
    """As the page on security says: the device obeys, and the socket in the node sends."""
    obeyed, elsewhere, _ = tries(LinuxDatapath)
    assert obeyed == [True, True]
    assert elsewhere


def test_a_tunnel_apart_is_out_of_reach():
    """What the pod has is a veth: it has no destination, and the wire works on."""
    obeyed, elsewhere, reached = tries(ApartDatapath)
    assert not obeyed[1]
    assert not elsewhere
    assert reached
