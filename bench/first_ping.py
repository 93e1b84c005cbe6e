"""From nothing to the first ping: a mesh comes up, an endpoint and a workload are applied, packets flow.

Run as root: python bench/run.py start. Each phase is one command of ``nsm``, as a person would type them.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from processes import command, cpu_of
from report import Report, row

from nsmesh.datapath import netns
from nsmesh.standalone.demo import ping

NAME = "start"
LIMIT = 60.0
"""Seconds that one command may take."""
PYTHON = "python, doing nothing"
SERVICE = """
apiVersion: networkservicemesh.io/v1alpha1
kind: NetworkService
metadata: {name: bench}
spec: {payload: IP}
---
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: responder}
spec:
  type: icmp-responder
  services: [bench]
  options: {cidr_prefix: 172.16.9.0/24}
"""
CLIENT = """
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: client
  annotations: {networkservicemesh.io: kernel://bench/nsm-1}
spec: {command: [sleep, infinity]}
"""

Found = defaultdict[str, list[tuple[float, float]]]
"""By phase: wall and CPU time of each round."""


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Start a mesh of its own name several times, and take it down."""
    found: Found = defaultdict(list)
    for number in range(2 if short else 6):
        with ExitStack() as stack:
            _once(found, stack, f"bench{os.getpid()}-{number}")
    report = Report()
    base = [cpu for _, cpu in found[PYTHON]]
    for phase, times in found.items():
        wall = [one for one, _ in times if one]
        cpu = [one for _, one in times if one]
        report.rows.append(row("start", phase, wall, cpu, base, to=PYTHON))
    return report


def _once(found: Found, stack: ExitStack, mesh: str) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    options = ["--mesh", mesh, "--run-dir", str(folder / "run"), "--state-dir", str(folder / "state")]
    files = {"responder": SERVICE, "client": CLIENT}
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)

    def nsm(*arguments: str) -> str:
        return _timed(found, f"nsm {arguments[0]}{_of(arguments)}", command("-q", *options, *arguments))

    _timed(found, PYTHON, [sys.executable, "-c", "pass"])
    nsm("version")
    stack.callback(lambda: _quietly(command("-q", *options, "down", "--purge")))
    before = time.perf_counter()
    nsm("up")
    daemon = json.loads(_timed(found, "nsm status", command(*options, "status", "-o", "json")))
    nsm("apply", "-f", str(folder / "responder.yaml"))
    nsm("apply", "-f", str(folder / "client.yaml"))
    client = next(path for path in netns.named() if mesh in path and path.endswith("client"))
    began = time.perf_counter()
    while not ping(client, _far(client), 1)[0]:
        if time.perf_counter() - began > LIMIT:
            raise SystemExit("the first ping is not answered")
    now = time.perf_counter()
    found["first ping after that"].append((now - began, 0.0))
    found["all, from up to first ping"].append((now - before, 0.0))
    found["of it, CPU of the daemon"].append((0.0, cpu_of(daemon["pid"])))
    nsm("down", "--purge")


def _of(arguments: tuple[str, ...]) -> str:
    return f" {Path(arguments[-1]).stem}" if "-f" in arguments else ""


def _timed(found: Found, phase: str, argv: list[str]) -> str:
    """Run a command, note its wall time and the CPU time of it and of what it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed:\n{done.stderr}{done.stdout}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found[phase].append((wall, cpu))
    return done.stdout


def _quietly(argv: list[str]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(argv, capture_output=True, timeout=LIMIT, check=False)


def _far(namespace: str) -> str:
    """Return the address at the other end: the host route that leads into the wire."""

    def look() -> str:
        return subprocess.run(
            ["ip", "-o", "route", "show", "dev", "nsm-1"], capture_output=True, text=True, check=True
        ).stdout

    return netns.call_in(namespace, look).split()[0].partition("/")[0]
