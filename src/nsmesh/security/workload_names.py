"""How both sides of the SPIFFE Workload API call it."""

from __future__ import annotations

SERVICE = "/SpiffeWorkloadAPI/"
"""The service has no proto package."""
SECURITY_HEADER = "workload.spiffe.io"
"""Request metadata that has to be ``true``: no proxy on the way adds it by accident."""
