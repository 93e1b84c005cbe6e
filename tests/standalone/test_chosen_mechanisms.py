"""What ``nsm up`` is told of mechanisms reaches every forwarder: as an option, and as a variable."""

import pytest
from host_lab import Host
from mesh_lab import Lab, ping, responder, until
from vlan_host import OUTSIDE, SELECTOR, client, vlan_documents

from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.ovs_programs import lacks_switch

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: ping}
spec: {payload: IP}
"""


def hops(mesh, name):
    """Return what the components of a wire's path say of its mechanisms between nodes."""
    detail = mesh.nsm("describe", "connection", f"{name}-0").ok().out
    return {kind: count for kind in ("WIREGUARD", "VXLAN", "SRV6") if (count := detail.count(f"{kind}/"))}


@pytest.mark.parametrize("mechanisms", ["WIREGUARD,VXLAN", "vxlan,wireguard", "SRV6,VXLAN"])
def test_the_first_mechanism_that_is_named_makes_the_wires(mechanisms):
    """Of two that could, on both nodes; those that are not named are not there."""
    for name in mechanisms.upper().split(","):
        if lacks(name):
            pytest.skip(f"{name}: {lacks(name)}")
    with Lab("m") as mesh:
        mesh.up("--nodes", "2", "--mechanisms", mechanisms)
        wanted = [[*mechanisms.upper().split(","), "KERNEL", "MEMIF"]] * 2
        until(lambda: [row["mechanisms"] for row in mesh.get("forwarders")] == wanted)
        mesh.apply(SERVICE).ok()
        mesh.apply(responder(prefix='"172.28.3.0/24"').replace("spec:", "spec:\n  node: node2", 1)).ok()
        mesh.apply(client("c", "ping", "node1")).ok()
        assert hops(mesh, "c") == {mechanisms.upper().split(",")[0]: 2}
        [row] = mesh.get("connections")
        until(lambda: ping(f"{mesh.mesh}.c", row["peer_address"][0].partition("/")[0]))


def test_a_name_that_is_none_is_told_at_once():
    """By the command itself, with the nearest one; nothing is started."""
    with Lab("m") as mesh:
        done = mesh.nsm("up", "--mechanisms", "WIREGARD")
        assert done.code == 2
        assert "did you mean WIREGUARD?" in done.err


@pytest.mark.skipif(bool(lacks("VLAN")), reason=lacks("VLAN"))
@pytest.mark.parametrize("kind", ["linux", "ovs"])
def test_a_forwarder_in_the_daemon_leads_to_vlans(kind):
    """One node, one process: the host's own interface; after a kill nothing of it is left in the host."""
    if kind == "ovs" and (why := lacks_switch()):
        pytest.skip(why)
    host, outsider = Host("h"), None
    try:
        host.run("sh", "-c", "cat >/run/selector.yaml", given=SELECTOR).ok()
        for command in (
            "ip netns add outside",
            "ip link add ext0 up type veth peer name eth0 netns outside",
            "ip -n outside link set eth0 up",
        ):
            host.run(*command.split()).ok()
        host.nsm("up", "--forwarders", kind, "--device-selector", "/run/selector.yaml").ok()
        host.apply(vlan_documents("one", "two")).ok()
        outsider = host.start(*OUTSIDE)  # it ends with the host
        until(lambda: host.ping("one", "172.10.0.254"))
        until(lambda: host.ping("two", "2001:db8:10::fe"))
        until(lambda: host.ping("two", "172.10.0.254"))
        assert any(name.startswith("vl") for name in links(host))
        pid = host.nsm("status", "-o", "json").ok().json()["pid"]
        host.run("kill", "-9", str(pid)).ok()
        until(lambda: host.run("test", "-e", f"/proc/{pid}").code)
        host.nsm("down").ok()
        assert {name for name in links(host) if name != "lo"} == {"ext0"}
    finally:
        host.close()
        if outsider is not None:
            outsider.communicate()


def links(host):
    found = host.run("ip", "-brief", "link").ok().out
    return {line.split()[0].partition("@")[0] for line in found.splitlines()}
