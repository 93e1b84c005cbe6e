"""From a role's start until it is ready, as a kubelet or systemd would wait for it: ``nsm run ROLE``.

Each role is a process of its own, with a folder of its own and no identity; ready is what it says itself in
its log. What it would connect to is not there: a role gets ready without.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from processes import Process, command
from report import Report, row

NAME = "roles"
LIMIT = 60.0
"""Seconds that a role may take to get ready."""
PYTHON = "python, doing nothing"
READY = " ready"
"""What each role says when it serves."""
ROLES: dict[str, dict[str, str]] = {
    "registry-memory": {},
    "registry-sqlite": {"NSM_DATABASE": "{folder}/registry.db"},
    "nsmgr": {"NSM_REGISTRY_URL": "unix://{folder}/none.sock", "NSM_JOURNAL": "{folder}/journal.db"},
    "forwarder": {"NSM_CONNECT_TO": "unix://{folder}/none.sock", "NSM_JOURNAL": "{folder}/journal.db"},
    "nse icmp-responder": {
        "NSM_CONNECT_TO": "unix://{folder}/none.sock",
        "NSM_SERVICE_NAMES": "bench",
        "NSM_CIDR_PREFIX": "172.16.9.0/24",
    },
}
"""Roles, and what each is told."""


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Start each role in turn, several times."""
    wall: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    for _ in range(2 if short else 10):
        for role in (PYTHON, *ROLES):
            taken, used = _once(role) if role in ROLES else _nothing()
            wall[role].append(taken)
            cpu[role].append(used)
    report = Report()
    for role, times in wall.items():
        report.rows.append(row("roles", role, times, cpu[role], cpu[PYTHON], to=PYTHON))
    return report


def _nothing() -> tuple[float, float]:
    """Return the wall and CPU time of an interpreter that ends at once."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    taken = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _once(role: str) -> tuple[float, float]:
    """Return the wall and CPU time until a role is ready; it has ended then."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        told = {name: value.format(folder=folder) for name, value in ROLES[role].items()}
        environment = {"NSM_LISTEN_ON": f"unix://{folder}/own.sock", "SPIFFE_ENDPOINT_SOCKET": "", **told}
        began = time.perf_counter()
        process = Process(role, command("run", *role.split()), folder / "log", environment=environment)
        try:
            while READY not in process.log.read_text(errors="replace"):
                process.check()
                if time.perf_counter() - began > LIMIT:
                    raise SystemExit(f"{role} does not get ready: {process.tail()}")
                time.sleep(0.002)
            return time.perf_counter() - began, process.cpu()
        finally:
            process.stop()
