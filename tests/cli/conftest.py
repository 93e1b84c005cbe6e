"""Fixtures for tests of the command line: those of whole meshes, and one mesh that all tests look at."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "standalone"))

import mesh_lab
from whole_meshes import no_leaks

__all__ = ["no_leaks"]

SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: guarded}
spec:
  payload: IP
  matches:
    - source_selector: {app: guard}
      routes: [{destination_selector: {app: responder}}]
    - routes: [{destination_selector: {app: guard}}]
"""
REST = """
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: guard}
spec:
  type: firewall
  services: [guarded]
  labels: {app: guard}
  options: {default: allow}
---
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: box
  annotations:
    networkservicemesh.io: kernel://guarded/nsm-1?tier=gold
spec:
  command: [sh, -c, "echo I am the box; sleep 1000"]
---
apiVersion: nsmesh/v1
kind: Link
metadata: {name: cable}
spec:
  ends:
    - {of: box, interface: eth0, addresses: [192.0.2.1/30]}
    - {of: responder, interface: eth0, addresses: [192.0.2.2/30]}
"""


@pytest.fixture(scope="session")
def mesh(no_leaks):
    """Bring up a mesh with an object of each kind; tests look at it and leave it as it is."""
    with mesh_lab.Lab() as lab:
        lab.up()
        text = mesh_lab.documents(SERVICE, mesh_lab.responder(service="guarded"), REST)
        lab.apply(text).ok()
        yield lab
