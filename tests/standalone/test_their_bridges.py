"""nsm up --switch with bridges in the device selector: clients are on VLANs of a switch that the host has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from host_lab import Host
from mesh_lab import until
from switch_host import SOCKET, START, everything
from vlan_host import OUTSIDE, vlan_documents

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]
SELECTOR = "bridges: [{name: br-ext, matches: [{labelSelector: [{via: gw-1}]}]}]\n"
WAY_OUT = """
set -e
ip netns add outside
ip link add ext0 up type veth peer name eth0 netns outside
ip -n outside link set eth0 up
cat >/run/selector.yaml
"""
BRIDGE = """
set -e
ovs-vsctl add-br br-ext -- set bridge br-ext datapath_type=netdev
ovs-vsctl add-port br-ext ext0
"""
UP = ("up", "--device-selector", "/run/selector.yaml", "--forwarders")


@pytest.fixture
def host() -> Iterator[Host]:
    outsider = None
    try:
        with Host("host") as found:
            found.run("bash", "-c", START).ok()
            found.run("bash", "-c", WAY_OUT, given=SELECTOR).ok()
            found.run("bash", "-c", BRIDGE).ok()
            outsider = found.start(*OUTSIDE)  # it ends with the host
            yield found
    finally:
        if outsider is not None:
            outsider.communicate()


def ports(host: Host) -> list[str]:
    """Return the ports of the bridge that leads out."""
    return host.run("ovs-vsctl", "list-ports", "br-ext").ok().out.split()


def address(host: Host, workload: str) -> str:
    """Return the IPv4 address of a workload on the VLAN."""
    inside = ("ip", "netns", "exec", f"default.{workload}")
    found = host.run(*inside, "ip", "-j", "-4", "address", "show", "nsm-1").ok().json()
    return str(found[0]["addr_info"][0]["local"])


@pytest.mark.parametrize("forwarders", ["ovs", "linux,ovs"])
def test_clients_are_on_a_vlan_of_their_bridge_and_leave_it_as_it_was(host: Host, forwarders: str) -> None:
    """They reach the outside and each other; a mesh whose daemon was killed goes on, and goes by the book."""
    before = everything(host)
    host.nsm(*UP, forwarders, "--switch", SOCKET).ok()
    host.apply(vlan_documents("one", "two")).ok()
    until(lambda: host.ping("one", "172.10.0.254"), 30, host.events)
    until(lambda: host.ping("two", "2001:db8:10::fe"), 30)
    assert host.ping("one", address(host, "two"))
    assert len(ports(host)) == 3
    host.kill_daemon()
    host.nsm(*UP, forwarders, "--switch", SOCKET).ok()
    until(lambda: [row["state"] for row in host.get("clients")] == ["up"] * 2, 30)
    assert host.ping("one", "172.10.0.254")
    host.nsm("delete", "workload", "one").ok()
    until(lambda: len(ports(host)) == 2, 20)
    host.nsm("down", "--purge").ok()
    until(lambda: everything(host) == before, 20, lambda: everything(host))


def test_their_bridge_that_is_deleted_and_made_again_has_its_clients_again(host: Host) -> None:
    """Meanwhile what is missing is said; nobody has to do anything with the mesh."""
    host.nsm(*UP, "ovs", "--switch", SOCKET).ok()
    host.apply(vlan_documents("one")).ok()
    until(lambda: host.ping("one", "172.10.0.254"), 30, host.events)
    host.run("ovs-vsctl", "del-br", "br-ext").ok()
    said = "via gw-1 leads to the bridge br-ext, and the Open vSwitch at /run/openvswitch/db.sock has none"
    until(lambda: said in host.nsm("logs").out, 30, host.events)
    until(lambda: [row["state"] for row in host.get("clients")] == ["healing"], 30, host.events)
    host.run("bash", "-c", BRIDGE).ok()
    until(lambda: host.ping("one", "172.10.0.254"), 60, host.events)
    assert len(ports(host)) == 2
    host.nsm("down", "--purge").ok()
    assert ports(host) == ["ext0"]


def test_down_after_a_kill_leaves_their_bridge_as_it_was(host: Host) -> None:
    """Nobody is left who knows the wires: the ports go by their marks, and are told."""
    before = everything(host)
    host.nsm(*UP, "linux,ovs", "--switch", SOCKET).ok()
    host.apply(vlan_documents("one")).ok()
    until(lambda: host.ping("one", "172.10.0.254"), 30, host.events)
    (port,) = set(ports(host)) - {"ext0"}
    host.kill_daemon()
    done = host.nsm("down", "--purge").ok()
    assert f"port {port} at {SOCKET}" in done.out + done.err
    until(lambda: everything(host) == before, 20, lambda: everything(host))


@pytest.mark.parametrize("forwarders", ["linux", "ovs"])
def test_without_the_switch_a_client_is_told_what_to_do(host: Host, forwarders: str) -> None:
    """By a forwarder that uses none, or one of its own: nothing is passed over in silence."""
    before = everything(host)
    host.nsm(*UP, forwarders).ok()
    host.apply(vlan_documents("one"))
    said = (
        "VLAN 100 via gw-1 is behind the bridge br-ext of an Open vSwitch, which this forwarder does not use"
    )
    until(lambda: said in host.nsm("describe", "workload", "one").out, 30, host.events)
    log = host.nsm("logs").out
    assert "served by forwarder-ovs with NSM_SWITCH_DATABASE alone" in log
    host.nsm("down", "--purge").ok()
    until(lambda: everything(host) == before, 20, lambda: everything(host))
