"""Kernel wires between pods: on one node, and between nodes."""

from __future__ import annotations

import lab_cluster as lab
import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


@pytest.mark.parametrize("far", [1, 2], ids=["same-node", "two-nodes"])
def test_wire_carries_packets(namespace: str, far: int) -> None:
    """A client's interface has its address, and packets pass in both directions."""
    service = f"icmp-{namespace}"
    lab.create(namespace, lab.responder("nse", far, "172.16.1.100/31", service))
    lab.ready(namespace, "nse")
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{service}/nsm-1"))
    lab.ready(namespace, "nsc")
    assert "172.16.1.101/32" in lab.inside(namespace, "nsc", "ip", "-o", "address", "show", "nsm-1")
    lab.until("the client's ping", lambda: lab.pings(namespace, "nsc", "172.16.1.100"), 10)
    lab.until("the endpoint's ping", lambda: lab.pings(namespace, "nse", "172.16.1.101"), 10)
