"""The role registry-k8s: two replicas as one registry, and the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from kubernetes_lab import until
from kubernetes_stores import apply_crds, ep

from nsmesh.chains.registry_kubernetes import running_kubernetes_registry
from nsmesh.chains.runtime import runtime_of
from nsmesh.chains.settings import KubernetesRegistrySettings
from nsmesh.core.call import Call
from nsmesh.core.lookup import find_endpoints
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint


def test_two_replicas_are_one_registry(api_server, api_namespace, tmp_path, monkeypatch):
    """What one registers the other finds; who registers at the other keeps living."""
    apply_crds(api_server)
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig))

    def settings(name: str) -> KubernetesRegistrySettings:
        return KubernetesRegistrySettings(
            listen_on=(f"unix://{tmp_path}/{name}.sock",),
            namespace=api_namespace,
            expire_period=3,
            registry_server_policies=(),
        )

    async def main():
        one_settings, two_settings = settings("one"), settings("two")
        async with (
            runtime_of(one_settings, 1.0) as held,
            running_kubernetes_registry(one_settings, held) as one,
            running_kubernetes_registry(two_settings, held) as two,
        ):
            service = await one.register(Call(), NetworkService(name=api_namespace))
            assert service.payload == "IP"
            await one.register(Call(), ep("lives", api_namespace))
            first = await one.register(Call(), ep("dies", api_namespace))
            assert first.HasField("initial_registration_time")
            assert first.HasField("expiration_time")
            template = NetworkServiceEndpoint(network_service_names=[api_namespace])
            names: set[str] = set()
            gone = asyncio.get_running_loop().time() + 30
            while names != {"lives"}:
                assert asyncio.get_running_loop().time() < gone
                again = await two.register(Call(), ep("lives", api_namespace))
                await asyncio.sleep(0.5)
                names = {e.name for e in await find_endpoints(one, Call(), template)}
                assert "lives" in names
            assert again.initial_registration_time.seconds - first.initial_registration_time.seconds <= 1
            await two.unregister(Call(), ep("lives"))
            async with asyncio.timeout(10):
                while await find_endpoints(one, Call(), template):  # noqa: ASYNC110 - a server changes it
                    await asyncio.sleep(0.05)

    asyncio.run(main())


@contextmanager
def running_role(role, log, environment):
    """Run a role's process, which writes into ``log``; it is killed in the end where it still runs."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "nsmesh.cli.main", "run", role],
            env=environment,
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("there", [True, False])
def test_the_process(api_server, api_namespace, tmp_path, there):
    """It says when it is ready and ends by SIGTERM with 0; without a cluster it says what is missing."""
    apply_crds(api_server)
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "KUBECONFIG": str(api_server.kubeconfig if there else tmp_path / "none"),
        "NSM_LISTEN_ON": f"unix://{tmp_path}/r.sock",
        "NSM_NAMESPACE": api_namespace,
    }
    with running_role("registry-k8s", log, environment) as process:
        if there:
            until("it is ready", lambda: "registry ready" in log.read_text())
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == (0 if there else 1)
    text = log.read_text()
    assert "Traceback" not in text
    assert there or ("set KUBECONFIG" in text and str(tmp_path / "none") in text)


@pytest.mark.parametrize("role", ["registry-k8s", "node-agent-k8s"])
def test_a_process_that_waits_for_its_server_ends_when_told(tmp_path, role):
    """Nothing answers at the API server's address: SIGTERM ends it all the same, without a traceback."""
    place = {"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}
    (tmp_path / "kubeconfig").write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [place],
                "users": [{"name": "a", "user": {"token": "none"}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "current-context": "a",
            }
        )
    )
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "NSM_LISTEN_ON": f"unix://{tmp_path}/r.sock",
        "NODE_NAME": "a",
        "NSM_FOLDER": str(tmp_path),
    }
    with running_role(role, log, environment) as process:
        until("it waits", lambda: "cannot be reached" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "Traceback" not in log.read_text()
