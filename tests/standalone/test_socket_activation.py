"""A role of ``nsm run`` takes the sockets that systemd passes: who asks before it is there waits for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from nsmesh import rpc
from nsmesh.api import health_pb2
from nsmesh.core.errors import Unavailable
from nsmesh.rpc.address import parse
from nsmesh.rpc.listening import listen

CHECK = "/grpc.health.v1.Health/Check"


def started(sock, log, **environment):
    """Start a registry as systemd does: the socket is descriptor 3, and LISTEN_PID the process."""
    command = f'export LISTEN_PID=$$; exec "$@" 3<&{sock.fileno()}'
    role = [sys.executable, "-m", "nsmesh.cli.main", "run", "registry-memory"]
    return subprocess.Popen(
        ["bash", "-c", command, "bash", *role],
        pass_fds=[sock.fileno()],
        stdout=log,
        stderr=log,
        env={**os.environ, "LISTEN_FDS": "1", **environment},
    )


def end(child):
    child.terminate()
    assert child.wait(10) == 0


async def healthy(url):
    client = await rpc.connect(url, timeout=40, limits=rpc.Limits(handshake=40.0))
    try:
        body = health_pb2.HealthCheckRequest().SerializeToString()
        answer = health_pb2.HealthCheckResponse.FromString((await client.unary(CHECK, body)).message)
        return answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        await client.aclose()


def test_a_role_serves_the_socket_that_is_passed(tmp_path):
    """A connection made before the start is served, and the socket's file is there after the end."""

    async def main():
        url = f"unix://{tmp_path}/registry.sock"
        with listen(parse(url), 0o600) as sock, (tmp_path / "log").open("wb") as log:
            asking = asyncio.ensure_future(healthy(url))
            await asyncio.sleep(0.05)
            child = started(sock, log, NSM_LISTEN_ON=url)
            try:
                assert await asking
            except BaseException:
                child.kill()
                child.wait()
                raise
            end(child)
        assert (tmp_path / "registry.sock").exists()

    asyncio.run(main())


def test_a_socket_at_another_address_is_told(tmp_path):
    """Where nobody would serve what was passed, the log says which socket, and what the role serves."""
    url, other = f"unix://{tmp_path}/registry.sock", f"unix://{tmp_path}/other.sock"
    with listen(parse(other), 0o600) as sock, (tmp_path / "log").open("wb") as log:
        child = started(sock, log, NSM_LISTEN_ON=url)
        try:
            assert asyncio.run(retried(url))
        finally:
            end(child)
    text = (tmp_path / "log").read_text()
    assert "a socket was passed to this process, and it serves another address" in text
    assert other in text


async def retried(url):
    for _ in range(300):
        try:
            return await healthy(url)
        except Unavailable:
            await asyncio.sleep(0.05)
    return False
