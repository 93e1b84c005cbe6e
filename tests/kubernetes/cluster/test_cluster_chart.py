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


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("registry.rol=x", "rol"),
        ("identity.provider=spiffe", "provider"),
        ("logLevel=debug", "logLevel"),
        ("forwarder.vxlanPort=70000", "vxlanPort"),
        ("forwarder.resources.limits.memory=lots", "memory"),
        ("maxTokenLifetime=10 minutes", "maxTokenLifetime"),
        ("nsmgr.excludedPrefixes={10.0.0.0}", "excludedPrefixes"),
        ("nsmgr.socketFolder=run/nsm", "socketFolder"),
        ("identity.trustDomain=Cluster", "trustDomain"),
        ("stateFolder=state", "stateFolder"),
        ("nsmgr.env.log_level=DEBUG", "log_level"),
        ("nsmgr.mirrorConnections=yes", "mirrorConnections"),
        ("cleanup.enable=false", "enable"),
    ],
)
def test_a_wrong_value_is_refused(setting: str, named: str) -> None:
    """The schema names the value that it refuses, before anything reaches a cluster."""
    program = lab.LAB / "bin/helm"
    if not program.exists():
        pytest.skip(f"helm is not built: no {program}")
    done = subprocess.run(
        [program, "template", "nsmesh", lab.PROJECT / "deploy/helm", "--set", setting],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert named in done.stderr
