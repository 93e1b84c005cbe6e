"""What a platform engineer does every week: restart, upgrade, roll back, under running packets."""

from __future__ import annotations

import lab_cluster as lab
import lab_mesh
import pytest
from streams import streamed, wired

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ALL = (
    "ds/nsm-identity-agent",
    "deploy/nsm-identity-authority",
    "deploy/registry",
    "ds/nsmgr",
    "ds/forwarder",
)


@pytest.mark.parametrize(
    "what", [("ds/forwarder",), ("ds/nsmgr",), ALL], ids=["forwarders", "managers", "all-at-once"]
)
def test_rollout_restart(namespace: str, what: tuple[str, ...]) -> None:
    """Each pod of it on each node is replaced: no packet is lost, and the interfaces stay as they are."""
    wire = wired(namespace, 2)
    with streamed(wire, f"rollout restart {' '.join(what)}") as stream:
        lab.kubectl("-n", lab.SYSTEM, "rollout", "restart", *what)
        lab_mesh.wait_for_mesh()
        wire.refreshed()
    assert (stream.lost, stream.pings_lost) == (0, 0)
    wire.unchanged()


def test_helm_upgrade_and_rollback(namespace: str) -> None:
    """To another image and back, all pods anew, twice: no packet is lost, and the interfaces stay."""
    wire = wired(namespace, 2)
    revision = lab_mesh.revision()
    for node in (1, 2):
        lab.in_node(node, "ctr", "-n", "k8s.io", "images", "tag", "--force", lab.IMAGE, f"{lab.IMAGE}-next")
    chart = str(lab.PROJECT / "deploy/helm")
    with streamed(wire, "helm upgrade, helm rollback") as stream:
        lab.helm(
            "upgrade", "nsmesh", chart, "-n", lab.SYSTEM, "--reset-then-reuse-values",
            f"--set=image.tag={lab.IMAGE.rpartition(':')[2]}-next", "--set=logLevel=INFO",
        )  # fmt: skip
        lab_mesh.wait_for_mesh()
        images = {
            container["image"]
            for pod in lab.objects("pod", "-n", lab.SYSTEM)["items"]
            if "deletionTimestamp" not in pod["metadata"]
            for container in pod["spec"]["containers"]
        }
        assert images == {f"{lab.IMAGE}-next"}
        wire.refreshed()
        lab.helm("rollback", "nsmesh", str(revision), "-n", lab.SYSTEM)
        lab_mesh.wait_for_mesh()
        wire.refreshed()
    assert (stream.lost, stream.pings_lost) == (0, 0)
    wire.unchanged()
