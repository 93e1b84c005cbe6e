"""What a forwarder takes from the environment, in the daemon's process or its own."""

from types import SimpleNamespace

import pytest

from nsmesh.core.errors import Invalid
from nsmesh.standalone.nodes import Node, NodeForwarder
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.roles import _forwarder_unit, forwarder_settings, ovs_settings

HERE = NodeForwarder("linux", "f", "f", "unix:///f")
NODE = Node("", "", "192.0.2.1", "m", "m", "unix:///m", (HERE,))


def test_wishes_count_and_places_do_not():
    """As for a forwarder that is a process of its own: what the mesh decides is the mesh's."""
    made = forwarder_settings(
        NODE,
        HERE,
        {
            "NSM_MECHANISM_PRIORITY": "WIREGUARD",
            "NSM_MECHANISMS": "WIREGUARD,VXLAN",
            "NSM_VXLAN_PORT": "4790",
            "NSM_TUNNELS_APART": "true",
            "NSM_VXLAN_GRO": "false",
            "NSM_DEVICE_SELECTOR_FILE": "/etc/selector.yaml",
            "NSM_SRV6_PREFIX": "2001:db8:5e:1::/64",
            "NSM_NAME": "other",
            "NSM_TUNNEL_IP": "192.0.2.9",
            "NSM_LISTEN_ON": "tcp://:1",
        },
    )
    assert (made.mechanism_priority, made.mechanisms) == (("WIREGUARD",), ("WIREGUARD", "VXLAN"))
    assert (made.vxlan_port, made.tunnels_apart, made.vxlan_gro) == (4790, True, False)
    assert made.srv6_prefix == "2001:db8:5e:1::/64"
    assert made.device_selector_file == "/etc/selector.yaml"
    assert (made.name, made.tunnel_ip, made.listen_on) == ("f", "192.0.2.1", "unix:///f")


def test_a_forwarder_with_a_switch_has_wishes_too():
    """Its memory and its mechanisms are the environment's to say, its place is the mesh's."""
    here = NodeForwarder("ovs", "o", "o", "unix:///o", "/run/s", "space")
    given = {"NSM_DPDK_MEMORY": "0", "NSM_MECHANISMS": "GENEVE", "NSM_SWITCH_DIRECTORY": "/elsewhere"}
    given |= {
        "NSM_SPARE_WIRES": "3",
        "NSM_SPARE_NETNS": "/elsewhere",
        "NSM_MOST_SWITCHES": "2",
        "NSM_MEMIF_APART": "true",
    }
    given |= {"NSM_L2_RESOURCE_SELECTOR_FILE": "/etc/selector.yaml"}
    made = ovs_settings(NODE, here, ("/run/netns/x", "/run/netns/y"), given)
    assert (made.dpdk_memory, made.mechanisms) == (0, ("GENEVE",))
    assert (made.spare_wires, made.most_switches, made.memif_apart) == (3, 2, True)
    assert (made.switch_directory, made.tunnel_ip) == ("/run/s", "192.0.2.1")
    assert (made.switch_netns, made.spare_netns) == ("/run/netns/x", "/run/netns/y")
    assert (made.plain.tunnel_ip, made.plain.mechanisms) == ("192.0.2.1", ("GENEVE",))
    assert made.plain.l2_resource_selector_file == "/etc/selector.yaml"


def test_labels_are_added_to_its_own():
    """Of the environment, as a separate process reads them; what the mesh says of a forwarder stays."""
    made = forwarder_settings(NODE, HERE, {"NSM_LABELS": "zone:a,p2p:false"})
    assert made.labels == {"zone": "a", "p2p": "true"}
    assert forwarder_settings(NODE, HERE, {}).labels == {"p2p": "true"}


def test_what_cannot_be_used_ends_the_start():
    """With the variable's name."""
    with pytest.raises(Invalid, match="NSM_VXLAN_PORT"):
        forwarder_settings(NODE, HERE, {"NSM_VXLAN_PORT": "many"})


@pytest.mark.parametrize(
    ("several", "said", "told"),
    [(True, None, "false"), (True, "true", "true"), (False, None, None), (False, "false", None)],
)
def test_between_nodes_of_one_host_no_segments_are_joined(monkeypatch, several, said, told):
    """Unless the environment says so; a forwarder of a host's only node, or of a join, reads that itself."""
    monkeypatch.delenv("NSM_VXLAN_GRO", raising=False)
    if said is not None:
        monkeypatch.setenv("NSM_VXLAN_GRO", said)
    mesh = SimpleNamespace(paths=MeshPaths.of("m", "/run/m", "/var/m"), several=several)
    unit = _forwarder_unit(mesh, NODE, HERE)
    assert unit.command.environment.get("NSM_VXLAN_GRO") == told
