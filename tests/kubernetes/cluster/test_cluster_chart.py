"""The chart and the plain manifests that are made from it."""

from __future__ import annotations

import os
import subprocess

import lab_cluster as lab
import pytest


def test_manifests_are_in_step_with_the_chart() -> None:
    """The plain manifests are what the chart gives."""
    program = lab.LAB / "bin/helm"
    if not program.exists():
        pytest.skip(f"helm is not built: no {program}")
    done = subprocess.run(
        [lab.PROJECT / "deploy/helm/render.sh"],
        env={**os.environ, "HELM": str(program)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (lab.PROJECT / "deploy/manifests/nsmesh.yaml").read_text()
