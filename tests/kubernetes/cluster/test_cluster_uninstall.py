"""The how-to of Kubernetes works as it stands, and leaves nothing. The last file: it ends the mesh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lab_cluster as lab
import lab_mesh
import pytest

sys.path.insert(0, str(lab.PROJECT / "tests/docs"))
from docs_console import blocks

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

HOW_TO = lab.PROJECT / "docs/how-to/kubernetes.md"
FOLDERS = ("/run/spire", "/var/lib/networkservicemesh", "/var/lib/nsmesh")
RESOLVED = " ".join(f"--set={name}={value}" for name, value in lab_mesh.ADDRESSES.items())
"""What the how-to says to set in a cluster without DNS, such as this one."""
PROGRAMS = {
    "kubectl": """#!/bin/sh
exec "{scripts}/kubectl.sh" "$@"
""",
    "helm": """#!/bin/sh
[ "$1" = install ] && set -- "$@" {resolved}
exec nsenter --net=/run/netns/{prefix}cp "{lab}/bin/helm" \\
    --kubeconfig="{lab}/cluster/admin.kubeconfig" "$@"
""",
    "ctr": """#!/bin/sh
for n in 1 2; do
    "{scripts}/in-node.sh" $n sh -c 'cd "$0" && exec "{ctr}" "$@"' "$PWD" "$@" || exit
done
""",
}
"""What a user has: programs that reach the cluster, and a shell on each node for ctr."""


def left_on_nodes() -> list[str]:
    """Return what the mesh has left on the nodes: folders, and interfaces that are no CNI's."""
    found = []
    for node in (1, 2):
        names = lab.in_node(node, "ip", "-br", "link", "show").splitlines()
        interfaces = [line.split("@")[0].split()[0] for line in names]
        found += [one for one in interfaces if not one.startswith(("lo", "eth", "cni", "veth"))]
        found += [
            folder
            for folder in FOLDERS
            if lab.in_node(node, "sh", "-c", f"ls -d {folder} 2>/dev/null || true")
        ]
    return found


def taken_away() -> None:
    """Uninstall what other tests have installed."""
    if "nsmesh" in lab.helm("list", "-n", lab.SYSTEM, "-q"):
        lab.helm("uninstall", "nsmesh", "-n", lab.SYSTEM)
    lab.kubectl("delete", "namespace", lab.SYSTEM, "--ignore-not-found", "--timeout=120s")


@pytest.fixture
def user(cluster: None, tmp_path: Path) -> Path:
    """Give a folder that looks like the checkout, and programs that reach the cluster."""
    for name in ("deploy", "docs", ".venv"):
        (tmp_path / name).symlink_to(lab.PROJECT / name)
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        for word, value in (
            ("scripts", lab.SCRIPTS),
            ("lab", lab.LAB),
            ("prefix", lab.PREFIX),
            ("resolved", RESOLVED),
            ("ctr", shutil.which("ctr")),
        ):
            text = text.replace(f"{{{word}}}", str(value))  # noqa: PLW2901 - filled in
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def test_the_how_to(user: Path) -> None:
    """Its commands in order: each succeeds, the wire is said to be up, and nothing is left on any node."""
    taken_away()
    environment = {
        **os.environ,
        "PATH": f"{user / 'bin'}:{os.environ['PATH']}",
        "NSMESH_LAB": str(lab.LAB),
        "NSMESH_NS": lab.PREFIX,
    }
    said, done = "", 0
    for block in blocks(HOW_TO.read_text()):
        if block.language != "sh" or block.skip:
            continue
        ran = subprocess.run(
            ["sh", "-euc", block.text],
            cwd=user,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert ran.returncode == 0, f"{HOW_TO.name}:{block.line}: {ran.stdout}{ran.stderr}"
        said += ran.stdout
        done += 1
    assert done == 6
    assert "all wires are up" in said
    assert "default     nsc-" in said  # the wire, as an object
    assert left_on_nodes() == []
