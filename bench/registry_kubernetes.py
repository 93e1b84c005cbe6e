"""Find, Register and watch on the API server of Kubernetes, beside calls to the bare server in the same run.

Run: python bench/run.py find-k8s. It brings an etcd and a kube-apiserver up on loopback; their programs are
built by ``tests/kubernetes/lab/build.sh api``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from lightkube.config.kubeconfig import KubeConfig
from registry_find import SERVICES as MANY
from registry_find import endpoint, resident
from report import Details, Report, row, size

from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import Api, connected
from nsmesh.kubernetes.codec import ENDPOINTS
from nsmesh.kubernetes.store import KubernetesStore
from nsmesh.model.messages import NetworkServiceEndpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/kubernetes"))

from kubernetes_lab import LAB, SCRIPTS, ApiServer

TITLE = "registry-k8s, {} endpoints"
ALL = "/apis/networkservicemesh.io/v1/networkserviceendpoints"
NAME = f"bench-{os.getpid()}"
PARALLEL = 16


async def timed(count: int, once: Callable[[int], Awaitable[object]]) -> list[float]:
    """Return the wall times of ``count`` calls, one after the other, in seconds."""
    walls = []
    for number in range(count):
        began = time.perf_counter()
        await once(number)
        walls.append(time.perf_counter() - began)
    return walls


def memory_of(server: ApiServer) -> int:
    """Return the resident bytes of the API server."""
    pages = Path(f"/proc/{server.pid('kube-apiserver')}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def measure(server: ApiServer, endpoints: int, calls: int, report: Report) -> None:
    """Fill a registry, and measure it."""
    config = KubeConfig.from_file(str(server.kubeconfig)).get()
    title = TITLE.format(endpoints)

    def store(api: Api) -> KubernetesStore[NetworkServiceEndpoint]:
        return KubernetesStore(api, ENDPOINTS, namespace="default")

    async with connected(config) as api, Scope("bench") as scope, store(api).running(scope) as one:
        ours, theirs = resident(), memory_of(server)
        gate = asyncio.Semaphore(PARALLEL)

        async def fill(number: int) -> None:
            async with gate:
                await one.put(endpoint(number))

        began = time.perf_counter()
        await asyncio.gather(*map(fill, range(endpoints)))
        rate = endpoints / (time.perf_counter() - began)
        memory = (size((resident() - ours) / endpoints), size((memory_of(server) - theirs) / endpoints))

        def by_service(number: int) -> Awaitable[object]:
            return one.list(NetworkServiceEndpoint(network_service_names=[f"service-{number % MANY}"]))

        def bare(number: int) -> Awaitable[object]:
            name = endpoint(number % endpoints).name
            return api.call("GET", ALL.replace("/v1/", "/v1/namespaces/default/") + f"/{name}")

        report.rows.append(row(title, "Find by service, from the view", await timed(calls * 10, by_service)))
        report.rows.append(row(title, "bare server: get one", await timed(calls, bare)))
        report.rows.append(
            row(title, "bare server: list all", await timed(3, lambda _: api.call("GET", ALL)))
        )
        began = time.perf_counter()
        async with store(api).running(scope) as two:
            synced = time.perf_counter() - began
            watch = two.watch(NetworkServiceEndpoint(name="moving"))

            async def told(number: int) -> None:
                await one.put(NetworkServiceEndpoint(name="moving", url=f"tcp://h:{number}"))
                await anext(watch)

            walls = await timed(calls, told)
            report.rows.append(row(title, "Register, until another replica's watch tells", walls))
            watch.close()
    report.details.append(
        Details(
            title,
            ("", "registry", "API server"),
            [
                ("memory per endpoint", *memory),
                ("registered per second", f"{rate:.0f}", ""),
                ("a new replica knows all after", f"{synced:.2f} s", ""),
            ],
        )
    )


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure; the report says why where that cannot be done."""
    report = Report()
    if not (LAB / "bin/kube-apiserver").exists():
        report.notes.append(
            "find-k8s: not measured, tests/kubernetes/lab/build.sh api was never run (needs Go)"
        )
        return report
    environment = {**os.environ, "NSMESH_API": NAME, "NSMESH_LAB": str(LAB)}
    subprocess.run([SCRIPTS / "api-up.sh"], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        from kubernetes_stores import apply_crds  # noqa: PLC0415 - it needs the path above

        server = ApiServer(LAB / NAME)
        apply_crds(server)
        asyncio.run(measure(server, 200 if short else 5000, 20 if short else 500, report))
    finally:
        subprocess.run([SCRIPTS / "api-down.sh"], env=environment, check=True)
    return report
