"""``nsm run nsmgr`` and its registry as processes, with identities from a Workload API, under attack."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest
from attacks import Forged, Insider, Nobody, connection, headers, refusal, spiffe
from security_roles import DOMAIN
from test_descriptor_floods import lingering, send

from nsmesh import rpc
from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core.errors import Unauthorized
from nsmesh.model import methods
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import Entries, Entry
from nsmesh.security.workload_api import WorkloadApi


class Processes:
    """A manager and a registry of one Workload API, and their logs."""

    def __init__(self, folder):
        self.folder = folder
        self.ca = CertificateAuthority.open(folder / "ca", DOMAIN)
        self.entries = Entries()
        self.processes = {}

    def url(self, name):
        return f"unix://{self.folder}/{name}.sock"

    def start(self, role, name, **variables):
        environment = {
            **os.environ,
            "NSM_NAME": name,
            "NSM_LISTEN_ON": self.url(name),
            "SPIFFE_ENDPOINT_SOCKET": self.url("api"),
            **variables,
        }
        command = [sys.executable, "-m", "nsmesh.cli.main", "run", role]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.processes[name] = process
        self.entries.register(Entry(frozenset({f"nsm:pid:{process.pid}"}), spiffe(name)))

    async def heard(self, name, text):
        limit = time.monotonic() + 10
        path = self.folder / f"{name}.log"
        while text not in path.read_text():
            assert time.monotonic() < limit, path.read_text()
            assert self.processes[name].poll() is None, path.read_text()
            await asyncio.sleep(0.02)
        return next(json.loads(line) for line in path.read_text().splitlines() if text in line)

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(10)


@contextlib.asynccontextmanager
async def running(folder):
    mesh = Processes(folder)
    async with served_workload_api(WorkloadApi(mesh.ca, mesh.entries), mesh.url("api")):
        try:
            mesh.start("registry-memory", "registry")
            mesh.start("nsmgr", "nsmgr", NSM_REGISTRY_URL=mesh.url("registry"))
            await mesh.heard("registry", "registry ready")
            await mesh.heard("nsmgr", "manager ready")
            yield mesh
        finally:
            mesh.stop()


def test_processes_refuse_and_live_on(tmp_path):
    """No certificate, a stranger's, a lying token, traps and silence: refused, said so, and survived."""

    async def main():
        async with running(tmp_path) as mesh:
            url = mesh.url("nsmgr")
            for identity, text in (
                (Nobody(), "showed no certificate"),
                (Forged(tmp_path, [spiffe("nsc")]), "was refused: self-signed certificate"),
            ):
                await refusal(attempt(url, identity))
                await mesh.heard("nsmgr", text)
            insider = Insider(mesh.ca, "insider")
            lying = headers(insider.token(sub=spiffe("nsc")))
            error = await refusal(insider.request(url, connection(), lying))
            assert isinstance(error, Unauthorized)
            line = await mesh.heard("nsmgr", "prev_token_subject")
            assert (line["peer"], line["at"]) == (spiffe("insider"), spiffe("nsmgr"))
            silent = [socket.socket(socket.AF_UNIX) for _ in range(300)]
            for sock in silent:
                sock.connect(url.removeprefix("unix://"))
            with lingering() as trap:
                send(silent[-1], b"\x16", [trap.fileno()])
                trap.close()
                began = time.monotonic()
                await attempt(url, insider.identity)
                assert time.monotonic() - began < 2
            for sock in silent:
                sock.close()
            assert all(process.poll() is None for process in mesh.processes.values())

    asyncio.run(main())


async def attempt(url, identity):
    client = await rpc.connect(url, identity=identity)
    try:
        await client.unary(methods.HEALTH_CHECK, b"", deadline=asyncio.get_running_loop().time() + 3)
    finally:
        await client.aclose(0)


@pytest.mark.parametrize("role", ["nsmgr", "registry-memory"])
def test_a_role_without_identity_is_not_put_on_the_network(tmp_path, role):
    """Without a Workload API a role serves its own user's unix sockets; a tcp address ends its start."""
    environment = {name: value for name, value in os.environ.items() if name != "SPIFFE_ENDPOINT_SOCKET"} | {
        "NSM_LISTEN_ON": f"unix://{tmp_path}/s.sock,tcp://127.0.0.1:0"
    }
    done = subprocess.run(
        [sys.executable, "-m", "nsmesh.cli.main", "run", role],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode
    assert "SPIFFE_ENDPOINT_SOCKET" in done.stderr
    assert "Traceback" not in done.stderr
