"""A registry that loses its state gets the network services back from the mesh."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3

import pytest
from mesh_lab import BOX, Lab, documents, is_gone, responder, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: NAME}
spec:
  payload: IP
  matches: [{routes: [{destination_selector: {app: responder}}], metadata: {labels: {note: kept}}}]
"""


def lose(lab):
    """Kill the registry and take its file away."""
    registry = next(row["pid"] for row in lab.status()["roles"] if row["role"] == "registry")
    os.kill(registry, signal.SIGSTOP)  # nothing is written from here on
    for file in lab.state.glob("**/registry.db*"):
        file.unlink()
    os.kill(registry, signal.SIGKILL)
    until(lambda: is_gone(registry))


def stored(lab):
    """Return the names of the network services in the registry's file; the mesh is down."""
    (file,) = lab.state.glob("**/registry.db")
    with contextlib.closing(sqlite3.connect(file)) as database:
        return {name for (name,) in database.execute("SELECT name FROM services")}


def test_a_registry_that_lost_its_state_gets_the_services_back():
    """Those that were applied, with their matches; not one that was deleted; new wires are made again."""
    with Lab() as lab:
        lab.up("--separate")
        lab.apply(documents(SERVICE.replace("NAME", "kept"), SERVICE.replace("NAME", "deleted"))).ok()
        lab.apply(documents(BOX, responder())).ok()
        lab.nsm("delete", "networkservice", "deleted").ok()
        before = {row["name"]: row for row in lab.get("services")}
        lose(lab)
        until(lambda: lab.nsm("logs").out.count("is registered again") == len(before), 20)
        wish = ("kernel://ping/nsm-7", "--netns", lab.namespace("hand"), "--name", "hand")
        until(lambda: not lab.nsm("connect", *wish).code, 20)  # the forwarder registers again meanwhile
        until(lambda: {row["name"]: row for row in lab.get("services")} == before, 20)
        lab.nsm("down").ok()
        assert stored(lab) == {"kept", "ping"}
