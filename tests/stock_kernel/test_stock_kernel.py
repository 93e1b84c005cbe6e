"""What the kernel of this host may lack, on the distribution's own kernel, which has all of it.

A few tests of other folders run there, in a machine of qemu; ``make test-stock-kernel`` runs whole files.
"""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import stock_host

WIRE = "tests/netns/test_tunnel_devices.py::test_a_wire_joins_two_nodes"
SWITCH = "tests/netns/test_ovs_shared.py"
TWO_NODES = "tests/netns/test_ovs_two_nodes.py"
"""Of it one test: the others count pings, of which an interpreted switch loses some."""
BRIDGES = "tests/netns/test_ovs_bridges.py"
MADE = f"{SWITCH}::test_a_wire_is_made_and_the_end_leaves_the_switch_as_it_was"
FAR = (
    "tests/netns/test_payload_ways.py"
    "::test_a_wire_from_a_switch_to_another_node_carries_its_payload_and_nothing_else"
)
FEW = (
    f"{WIRE}[GENEVE-IP-4]",
    f"{WIRE}[GRE-ETHERNET-6]",
    f"{WIRE}[WIREGUARD-IP-4]",
    f"{WIRE}[SRV6-IP-6]",
    "tests/netns/test_tunnel_devices.py::TestWireguard::test_another_key_is_another_tunnel",
    f"{MADE}[system-ports in advance]",
    f"{FAR}[GRE-IP]",
    f"{BRIDGES}::test_a_host_outside_is_reached_by_their_bridge[system-IP]",
)
"""The short form: a wire of each kind, and two through the kernel's own datapath of Open vSwitch."""
NOT_THERE = (
    # the distribution's kernel for clouds cannot reject from an ingress hook: the firewall drops there
    "test_what_a_rule_allows_passes_and_the_rest_is_refused_at_once",
    "test_the_far_side_cannot_begin",
    "test_udp_answers_pass_and_refused_udp_is_told",
    "test_a_reload_keeps_established_flows",
    # of wireguard-go alone
    "test_a_killed_wireguard_comes_back",
    "test_nothing_is_left_behind",
    "test_the_tool_for_the_kernel_understands_our_texts",
)
ALL = {
    "tunnels": ["tests/netns/test_tunnel_devices.py", "tests/netns/test_tunnels_apart.py"],
    "switch": [SWITCH, "tests/netns/test_ovs_vigil.py"],
    "nodes": [f"{TWO_NODES}::test_a_wire_by_another_tunnel"],
    "vlans": ["tests/netns/test_vlans.py", "tests/netns/test_ovs_vlans.py", BRIDGES],
    "underlay": ["tests/netns/test_underlay.py", "tests/netns/test_kernel_features.py"],
    "endpoints": [
        "tests/netns/test_firewall_netns.py",
        "tests/netns/test_vpn_netns.py",
        "-k",
        "not (" + " or ".join(NOT_THERE) + ")",
    ],
    "wires": [
        "tests/netns/test_linux_datapath.py",
        "tests/netns/test_kept_wires.py",
        "tests/netns/test_payload_frames.py",
        "tests/netns/test_payload_ways.py",
    ],
}
PREPARE = "modprobe tun; echo 1 > /proc/sys/net/core/fb_tunnels_only_for_init_net"
"""Without that each namespace gets devices of the kernel's own with the modules of tunnels."""
whole = pytest.mark.skipif(
    "NSMESH_TEST_STOCK_KERNEL" not in os.environ, reason="make test-stock-kernel runs it"
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(stock_host.lacks()), reason=stock_host.lacks()),
]


def ran(folder, *words):
    """Run tests there; return how many passed, failed and were skipped, and all that was said."""
    given = f"PYTHONPATH={shlex.quote(os.environ.get('PYTHONPATH', ''))}"
    how = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=/run/tests", *words]
    try:
        said = stock_host.run(folder, f"{PREPARE}; {given} {shlex.join(how)}", patience=1400)
    except stock_host.MissingError as error:
        pytest.skip(str(error))
    last = said.strip().splitlines()[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", last.partition(" in ")[0])}
    return counts, said


def test_what_a_kernel_has_that_this_one_may_lack(tmp_path):
    """GENEVE, GRE, WireGuard and Open vSwitch of the kernel's own, and a program of ours, carry wires."""
    counts, said = ran(tmp_path, *FEW)
    assert counts == {"passed": len(FEW)}, said


@whole
@pytest.mark.parametrize("name", ALL)
def test_files_of_tests_pass_there(tmp_path, name):
    """None fails, and hardly any is left out."""
    counts, said = ran(tmp_path, *ALL[name])
    assert counts.get("passed", 0) > 5, said
    assert counts.get("failed", 0) + counts.get("errors", 0) == 0, said
    assert counts.get("skipped", 0) < 8, said


MESH = """
(nsm up --nodes 2 --latency 20ms --foreground >/run/up.log 2>&1 &)
for second in $(seq 120); do nsm status >/dev/null 2>&1 && break; sleep 1; done
cat >/run/endpoint.yaml <<Y
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: far}
spec: {type: icmp-responder, node: node2, services: [pings], options: {cidr_prefix: 172.31.0.0/24}}
Y
nsm apply -f /run/endpoint.yaml
ip netns add pod
nsm connect kernel://pings/nsm-1 --netns pod --node node1
ip netns exec pod ping -c 5 172.31.0.0
nsm down
ls /run/netns
"""


@whole
def test_a_mesh_of_two_nodes_with_latency_between_them(tmp_path):
    """A wire crosses, netem holds each packet up once each way, and nothing but the pod is left."""
    here = shlex.quote(str(Path(sys.executable).parent))
    said = stock_host.run(tmp_path, f"export PATH={here}:$PATH\n{MESH}")
    fastest = float(re.search(r"rtt min/avg/max/mdev = ([\d.]+)/", said)[1])
    assert 40 <= fastest < 80, said
    assert "5 packets transmitted, 5 received" in said
    assert said.split()[-1] == "pod", said
