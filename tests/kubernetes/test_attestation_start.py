"""The CA of a cluster as a process: what it does while the API server is away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kubernetes_attestation import CA, Cluster, prepared
from kubernetes_lab import until
from lightkube.config.kubeconfig import KubeConfig

pytestmark = pytest.mark.timeout(180)


async def account(cluster: Cluster) -> None:
    """Write the files of the CA's service account."""
    async with cluster.api(CA):
        pass


@contextmanager
def running(cluster: Cluster, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the CA as a pod would."""
    url = urlsplit(KubeConfig.from_file(str(cluster.server.kubeconfig)).get().cluster.server)
    environment = {
        **os.environ,
        "KUBERNETES_SERVICE_HOST": str(url.hostname),
        "KUBERNETES_SERVICE_PORT": str(url.port),
        "NSM_NAMESPACE": cluster.namespace,
        "NSM_SERVICE_ACCOUNT_FOLDER": str(cluster.folder / CA),
        "NSM_FOLDER": str(cluster.folder / "ca"),
        "NSM_LISTEN_ON": "tcp://127.0.0.1:0",
    }
    command = [sys.executable, "-m", "nsmesh.cli.main", "run", "identity-authority"]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_api_server_is_away_at_its_start(own_api_server, tmp_path):
    """It says so and waits, ends at once when it is told to, and signs when the API server is back."""
    own_api_server.kubectl("create", "namespace", "away")
    with prepared(own_api_server, "away", tmp_path) as cluster:
        asyncio.run(account(cluster))
        command = own_api_server.stop_api()
        try:
            log = tmp_path / "stopped"
            with running(cluster, log) as process:
                until("it waits", lambda: "the CA waits for the API server" in log.read_text())
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 1
            assert "Traceback" not in log.read_text()
            log = tmp_path / "served"
            with running(cluster, log) as process:
                until("it waits", lambda: "the CA waits for the API server" in log.read_text())
                own_api_server.start_api(command)
                until("it is ready", lambda: "CA ready" in log.read_text())
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
        finally:
            if "ok" not in own_api_server.kubectl("get", "--raw", "/readyz", check=False):
                own_api_server.start_api(command)
    assert own_api_server.kubectl("get", "--raw", "/readyz") == "ok"
