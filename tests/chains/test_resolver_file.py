"""``nsm run nsc`` as a process of its own keeps the resolver file of its pod, over the sockets of a mesh."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from descriptor_mesh import DescriptorMesh

from nsmesh.elements.dns_context import DnsContext
from nsmesh.model.messages import DNSConfig
from nsmesh.model.resolver_text import servers

POD = "search cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
WIRE = DNSConfig(dns_server_ips=["172.16.0.53"], search_domains=["red.example"])


class NamesServers(DescriptorMesh):
    """A mesh whose endpoint names a DNS server."""

    def __init__(self):
        super().__init__()
        self.fault = DnsContext([WIRE])


@asynccontextmanager
async def client(mesh, path, *, stderr=None):
    """Run the client; it is killed at the end if it still runs. What it says is shown with a failed test."""
    environment = {
        "PATH": os.environ["PATH"],
        "NSM_NAME": "pod",
        "NSM_CONNECT_TO": mesh.url("nsmgr"),
        "NSM_NETWORK_SERVICES": "kernel://s/one",
        "NSM_LIVENESS_CHECK_ENABLED": "false",
        "NSM_RESOLVER_FILE": str(path),
    }
    nsm = str(Path(sys.executable).with_name("nsm"))
    process = await asyncio.create_subprocess_exec(nsm, "run", "nsc", env=environment, stderr=stderr)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(process, true):
    """Wait until it is true, as long as the client runs."""
    async with asyncio.timeout(60):
        while not true():
            assert process.returncode is None, f"the client ended with {process.returncode}"
            await asyncio.sleep(0.05)


def test_the_file_lasts_as_long_as_the_wire(tmp_path):
    """The wire's server stands first; a SIGKILL loses nothing; SIGTERM gives all back, to the byte."""
    path = tmp_path / "resolv.conf"
    path.write_text(POD)

    async def main():
        async with NamesServers() as mesh:
            async with client(mesh, path) as killed:
                await until(killed, lambda: servers(path.read_text()) == ["172.16.0.53", "10.96.0.10"])
                assert "\nsearch red.example cluster.local\n" in path.read_text()
            mesh.watch.clear()
            async with client(mesh, path) as process:
                await until(process, lambda: mesh.watch.answered)
                assert servers(path.read_text()) == ["172.16.0.53", "10.96.0.10"]
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(60):
                    await process.wait()
            assert path.read_text() == POD

    asyncio.run(main())


def test_a_file_that_cannot_be_kept_ends_the_client_in_one_line(tmp_path):
    """Who asked for it learns at the start that it is not served; no wire is asked for."""

    async def main():
        piped = asyncio.subprocess.PIPE
        async with NamesServers() as mesh, client(mesh, tmp_path / "none", stderr=piped) as process:
            async with asyncio.timeout(60):
                _, said = await process.communicate()
            assert process.returncode != 0
            told = said.decode()
            assert f"NSM_RESOLVER_FILE: cannot read and write {tmp_path / 'none'}: No such file" in told
            assert "Traceback" not in told
            assert not [
                one for one in mesh.manager.begin.connections if one.path.path_segments[0].id == "pod-0"
            ]

    asyncio.run(main())
