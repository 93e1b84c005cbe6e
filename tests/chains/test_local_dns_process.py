"""``nsm run nsc`` as a process of its own serves names of wires, over the sockets of a mesh."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rrset
import pytest
from descriptor_mesh import DescriptorMesh

from nsmesh.chains.nsc import local_dns
from nsmesh.chains.settings_nsc import NscSettings
from nsmesh.core.errors import Invalid
from nsmesh.elements.dns_context import DnsContext
from nsmesh.model.messages import DNSConfig
from nsmesh.model.resolver_text import domains, servers

pytestmark = pytest.mark.root
"""For the port: a resolver file names none."""

POD = "search cluster.local\nnameserver 127.53.0.10\noptions ndots:5\n"
WIRE = DNSConfig(dns_server_ips=["172.16.0.53"], search_domains=["red.example"])


class NamesServers(DescriptorMesh):
    """A mesh whose endpoint names a DNS server."""

    def __init__(self):
        super().__init__()
        self.fault = DnsContext([WIRE])


@asynccontextmanager
async def client(mesh, path, address, *, stderr=None):
    """Run the client; it is killed at the end if it still runs. What it says is shown with a failed test."""
    environment = {
        "PATH": os.environ["PATH"],
        "NSM_NAME": "pod",
        "NSM_CONNECT_TO": mesh.url("nsmgr"),
        "NSM_NETWORK_SERVICES": "kernel://s/one",
        "NSM_LIVENESS_CHECK_ENABLED": "false",
        "NSM_RESOLVER_FILE": str(path),
        "NSM_LOCAL_DNS_SERVER_ADDRESS": f"{address}:53",
        "NSM_UP_SOCKET": f"@nsm-{address}",
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


class Cluster(asyncio.DatagramProtocol):
    """A DNS server that knows each name of the cluster, and its address: the one that the pod had before."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        reply = dns.message.make_response(dns.message.from_wire(data))
        reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "A", "10.96.0.1"))
        self.transport.sendto(reply.to_wire(), addr)


def is_up(address):
    """Return whether the client says that all its wires are up."""
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(f"\0nsm-{address}") == 0


async def asked(address):
    """Return what the client's server says of a name of the cluster."""
    query = dns.message.make_query("kubernetes.cluster.local", "A")
    reply = await dns.asyncquery.udp(query, address, timeout=30)
    return reply.answer[0][0].to_text()


def test_names_are_served_as_long_as_the_wire_is(tmp_path):
    """The file names our server; a SIGKILL loses nothing; SIGTERM gives all back, to the byte."""
    address, path = "127.53.0.1", tmp_path / "resolv.conf"
    path.write_text(POD)

    async def main():
        loop = asyncio.get_running_loop()
        cluster, _ = await loop.create_datagram_endpoint(Cluster, local_addr=("127.53.0.10", 53))
        async with NamesServers() as mesh:
            async with client(mesh, path, address) as killed:
                await until(killed, lambda: is_up(address))
                assert servers(path.read_text()) == [address]
                assert domains(path.read_text()) == ["cluster.local", "red.example"]
                assert await asked(address) == "10.96.0.1"
            assert not is_up(address)
            mesh.watch.clear()
            async with client(mesh, path, address) as process:
                await until(process, lambda: mesh.watch.answered)
                await until(process, lambda: servers(path.read_text()) == [address])
                assert await asked(address) == "10.96.0.1"
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(60):
                    await process.wait()
            assert path.read_text() == POD
        cluster.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("where", "word"),
    [("127.53.0.2:5353", "cannot stand in a resolver file"), (":53", "cannot stand"), ("53", "neither")],
)
def test_an_address_that_no_file_can_name_ends_the_client_in_one_line(where, word):
    """Before a wire is asked for; the variable is named."""
    settings = NscSettings(local_dns_server_address=where, resolver_file="/etc/resolv.conf")
    with pytest.raises(Invalid, match=word):
        local_dns(settings)


@pytest.mark.parametrize(
    "off", [{"local_dns_server_enabled": False}, {"resolver_file": ""}, {"netns": "/run/netns/pod"}]
)
def test_nothing_is_served_where_that_is_not_wanted_or_would_be_elsewhere(off):
    """A client whose wires end in another namespace has another loopback than its pod."""
    settings = {"resolver_file": "/etc/resolv.conf", **off}
    assert local_dns(NscSettings(**settings)) is None
