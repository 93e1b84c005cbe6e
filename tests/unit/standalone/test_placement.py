"""The nodes of a mesh, and who lives where."""

import pytest

from nsmesh.core.errors import NotFound
from nsmesh.standalone.nodes import Placement, nodes_of, wanted_node
from nsmesh.standalone.paths import MeshPaths


def nodes(count):
    return nodes_of(MeshPaths.of("m", "/tmp/m/run", "/tmp/m/state"), count)


def test_one_node_is_the_host_itself():
    """It has NSM's own names and sockets, and neither a namespace nor an address."""
    (node,) = nodes(1).values()
    assert (node.name, node.netns, node.ip) == ("", "", "")
    assert (node.manager, node.manager_unit) == ("nsmgr-m", "nsmgr")
    assert node.manager_url == node.public_url == "unix:///tmp/m/run/nsm.io.sock"


def test_several_nodes_have_nothing_in_common():
    """Each has a namespace, an address, and names of its own; other nodes reach its manager over tcp."""
    found = nodes(3)
    assert list(found) == ["node1", "node2", "node3"]
    for field in ("netns", "ip", "manager", "manager_url", "forwarders", "public_url"):
        assert len({getattr(node, field) for node in found.values()}) == 3
    assert found["node2"].public_url == "tcp://100.64.0.2:5001"
    assert found["node2"].netns == "/run/netns/m.node2"


def test_who_says_nothing_goes_where_the_fewest_are():
    """Those that say their node count as well; who has a place keeps it; who goes makes room."""
    placement = Placement(nodes(3))
    assert placement.put("endpoint", "a", "node1").name == "node1"
    assert [placement.put("client", name).name for name in "bcd"] == ["node2", "node3", "node1"]
    assert placement.put("client", "c").name == "node3"
    placement.drop("client", "c")
    placement.drop("client", "c")
    assert placement.of("client", "c") is None
    assert placement.put("client", "e").name == "node3"
    assert placement.put("client", "b", "node1").name == "node1"
    assert placement.of("client", "b").name == "node1"


def test_a_node_that_is_not_there_is_told_with_those_that_are():
    """In a mesh of one node, how to have several."""
    wanted_node(nodes(2), "", "workload a")
    wanted_node(nodes(2), "node2", "workload a")
    with pytest.raises(NotFound, match=r"workload a: there is no node node3 - there are node1, node2"):
        wanted_node(nodes(2), "node3", "workload a")
    with pytest.raises(NotFound, match="bring it up with --nodes 2"):
        wanted_node(nodes(1), "node1", "workload a")
