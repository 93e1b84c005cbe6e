"""For tests of VLANs on a whole host: its device selector, what is applied, and who is outside."""

from __future__ import annotations

import sys
from pathlib import Path

SELECTOR = "interfaces: [{name: ext0, matches: [{labelSelector: [{via: gw-1}]}]}]\n"
SCRIPT = Path(__file__).parents[2] / "examples" / "vlan-breakout" / "outside.py"
OUTSIDE = (
    *("ip", "netns", "exec", "outside", sys.executable, str(SCRIPT), "eth0", "100"),
    *("172.10.0.254/24", "2001:db8:10::fe/64"),
)
"""The command that is a host outside, on VLAN 100."""
ENDPOINT = """
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: vlans}
spec:
  type: remote-vlan
  services: [finance]
  options:
    services: ["finance { vlan: 100; via: gw-1 }"]
    cidr_prefix: [172.10.0.0/24, "2001:db8:10::/64"]
"""


def client(name: str, service: str, node: str = "") -> str:
    """Return a workload with one wire."""
    return f"""
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: {name}
  annotations: {{networkservicemesh.io: kernel://{service}/nsm-1}}
spec: {{node: "{node}"}}
"""


def vlan_documents(*clients: str) -> str:
    """Return an endpoint of VLAN 100 and clients on it."""
    return "---".join([ENDPOINT, *(client(name, "finance") for name in clients)])
