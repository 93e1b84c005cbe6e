"""Where the hops of a connection are."""

from nsmesh.standalone.rows_connection import places_of

NODES = {"mgr1": "node1", "fwd1": "node1", "mgr2": "node2", "fwd2": "node2"}


def test_each_hop_has_the_node_of_its_forwarder():
    """A client is where its manager is, a function and an endpoint where the forwarder in front of it is."""
    names = ["client", "mgr1", "fwd1", "mgr2", "fwd2", "firewall", "mgr2", "fwd2", "mgr1", "fwd1", "gateway"]
    assert places_of(names, NODES) == ["node1"] * 3 + ["node2"] * 5 + ["node1"] * 3


def test_a_mesh_of_one_node_names_none():
    """What has no name is not shown."""
    assert places_of(["client", "mgr", "fwd", "nse"], {"mgr": "", "fwd": ""}) == [""] * 4
    assert places_of([], {}) == []
