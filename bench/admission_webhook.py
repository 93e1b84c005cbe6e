"""What the admission webhook adds to the making of a pod, on a real API server.

Run: python bench/run.py webhook. It brings an etcd and a kube-apiserver up on loopback, with the webhook as a
process beside them. Pods are made in turns of four kinds, one at a time and many in flight: in a namespace
that never comes to the webhook, without an annotation, with one, and by the annotation of their namespace.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lightkube.config.kubeconfig import KubeConfig
from processes import cpu_of, memory_of
from report import Details, Report, row, size

from nsmesh.kubernetes.client import Api, collection, connected

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/kubernetes"))

from kubernetes_lab import LAB, SCRIPTS, ApiServer, until

NAME = f"bench-{os.getpid()}"
TITLE = "admission webhook"
PARALLEL = 20
EXEMPT, PLAIN, OWN, INHERITED = "exempt namespace", "not annotated", "annotated", "annotated namespace"
ROUNDS = 5


async def made(api: Api, place: str, body: dict, count: int, parallel: int) -> tuple[list[float], float]:
    """Make pods; returns the wall time of each, and of all, in seconds."""
    gate = asyncio.Semaphore(parallel)
    path = collection("v1", "pods", place)

    async def once() -> float:
        async with gate:
            began = time.perf_counter()
            await api.call("POST", path, body=body)
            return time.perf_counter() - began

    began = time.perf_counter()
    walls = await asyncio.gather(*(once() for _ in range(count)))
    return list(walls), time.perf_counter() - began


async def measure(server: ApiServer, places: dict, pid: int, count: int, report: Report) -> None:
    """Make pods of each kind in turn, first one at a time, then many."""
    config = KubeConfig.from_file(str(server.kubeconfig)).get()
    async with connected(config) as api:
        for parallel in (1, PARALLEL):
            walls: dict[str, list[float]] = {kind: [] for kind in places}
            spent: dict[str, list[float]] = {kind: [] for kind in places}
            whole = dict.fromkeys(places, 0.0)
            for turn in range(ROUNDS + 1):
                for kind, (place, body) in places.items():
                    before = cpu_of(pid)
                    found, seconds = await made(api, place, body, count, parallel)
                    if turn:  # the first one warms up
                        walls[kind] += found
                        whole[kind] += seconds
                        spent[kind].append((cpu_of(pid) - before) / count)
            title = f"{TITLE}, {'one at a time' if parallel == 1 else f'{parallel} in flight'}"
            for kind in places:
                cpu = spent[kind] if kind != EXEMPT else ()
                rate = len(walls[kind]) / whole[kind]
                report.rows.append(row(title, kind, walls[kind], cpu, per_second=rate))
    report.details.append(Details(TITLE, ("", ""), [("its memory after all", size(memory_of(pid).rss))]))


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure; the report says why where that cannot be done."""
    report = Report()
    if not (LAB / "bin/kube-apiserver").exists():
        report.notes.append(
            "webhook: not measured, tests/kubernetes/lab/build.sh api was never run (needs Go)"
        )
        return report
    environment = {**os.environ, "NSMESH_API": NAME, "NSMESH_LAB": str(LAB)}
    subprocess.run([SCRIPTS / "api-up.sh"], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        from kubernetes_webhook import KEY, URL, pod, webhook  # noqa: PLC0415 - it needs the path above

        server = ApiServer(LAB / NAME)
        for place in ("one", "inherits", "kube-system"):
            server.kubectl("create", "namespace", place, check=False)
        server.kubectl("annotate", "namespace", "inherits", f"{KEY}={URL}")
        places = {
            EXEMPT: ("kube-system", pod()),
            PLAIN: ("one", pod(None)),
            OWN: ("one", pod()),
            INHERITED: ("inherits", pod(None)),
        }
        settings = {"NSM_LOG_LEVEL": "WARN", "NSM_KUBELET_QPS": "50"}
        with (
            tempfile.TemporaryDirectory() as folder,
            webhook(server, "one", Path(folder), **settings) as (where, one),
        ):
            until("it is known", lambda: "inherits" in json.dumps(where.configuration()))
            asyncio.run(measure(server, places, one.process.pid, 20 if short else 100, report))
    finally:
        subprocess.run([SCRIPTS / "api-down.sh"], env=environment, check=True)
    return report
