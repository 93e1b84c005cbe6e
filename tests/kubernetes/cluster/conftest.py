"""One cluster with one mesh for the whole session, one namespace for each test."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import lab_cluster as lab
import lab_mesh

LAST = "test_cluster_uninstall.py"
"""What ends the mesh of the session."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let all tests that need the mesh come before what ends it."""
    items.sort(key=lambda item: item.path.name == LAST)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Bring two nodes up, and down again in any case."""
    if os.environ.get("NSMESH_TEST_CLUSTER") != "1":
        pytest.skip("the two-node cluster runs by make test-cluster")
    if why := lab.missing():
        pytest.skip(why)
    if os.environ.get("NSMESH_LAB_KEEP") == "1" and lab.running():
        yield
        return
    lab.up()
    try:
        yield
    finally:
        if os.environ.get("NSMESH_LAB_KEEP") != "1":
            lab.down()


@pytest.fixture(scope="session")
def mesh(cluster: None) -> None:
    """Install the mesh in it, by the chart."""
    if "nsmesh" not in lab.helm("list", "-n", lab.SYSTEM, "-q"):
        lab_mesh.install_mesh()
    lab_mesh.wait_for_mesh()


@pytest.fixture
def namespace(mesh: None) -> Iterator[str]:
    """Make a namespace for one test."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    lab.kubectl("create", "namespace", name)
    yield name
    lab.kubectl("delete", "namespace", name, "--wait=false", check=False)
    lab.kubectl("-n", name, "delete", "pod", "--all", "--grace-period=1", check=False)


@pytest.fixture(scope="session")
def options(mesh: None) -> None:
    """Turn on what the chart can do beyond its defaults, by helm upgrade; it stays on afterwards."""
    lab.kubectl("apply", "--server-side", "-f", str(lab.PROJECT / "deploy/crds"))
    lab_mesh.upgrade(
        "registry.role=registry-k8s",
        "registry.replicas=2",
        "nsmgr.mirrorConnections=true",
        "nsmgr.findPrefixes=true",
        "nsmgr.excludedPrefixes={172.16.3.201/32,172.16.3.202/32}",
    )
