"""The resolver file as a pod has it: a mount at /etc/resolv.conf, read by the resolver of the C library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

POD = "nameserver 10.96.0.10\nsearch svc.cluster.local\noptions timeout:5 attempts:1 ndots:5\n"

IN_THE_POD = """
import asyncio, socket, threading
from pathlib import Path

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Tail, chain
from nsmesh.core.begin_client import BeginClient
from nsmesh.elements.dns_context import DnsContext
from nsmesh.elements.local_dns import LocalDns
from nsmesh.model.messages import Connection, DNSConfig, NetworkServiceRequest

def serve(address, name, last):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    threading.Thread(target=answer, args=(server, name, last), daemon=True).start()

def answer(server, name, last):
    while True:
        query, sender = server.recvfrom(512)
        question = query[12 : query.index(0, 12) + 5]
        known = question.startswith(name + b"\\0\\0\\x01")
        flags = b"\\x81\\x80" if known else b"\\x81\\x83"
        record = b"\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x3c\\0\\x04" + bytes([172, 16, 0, last])
        counts = b"\\0\\x01" + (b"\\0\\x01" if known else b"\\0\\0") + b"\\0\\0\\0\\0"
        server.sendto(query[:2] + flags + counts + question + (record if known else b""), sender)

def look_up(name):
    try:
        return socket.gethostbyname(name)
    except OSError:
        return "unknown"

async def show(what):
    loop = asyncio.get_running_loop()
    names = ("web", "web.red.example", "db", "db.svc.cluster.local", "none")
    print(what, *[await loop.run_in_executor(None, look_up, name) for name in names])

async def main():
    config = DNSConfig(dns_server_ips=["172.16.0.53"], search_domains=["red.example"])
    made = chain(
        BeginClient(), LocalDns(Path("/etc/resolv.conf"), "127.0.0.1", 53), DnsContext([config]), end=Tail(),
        name="client nsc",
    )
    async with made.running():
        ours, wire = Call(peer=Peer(in_process=True)), Connection(id="wire", network_service="s")
        await show("before")
        await made.request(ours, NetworkServiceRequest(connection=wire))
        await show("meanwhile")
        await made.close(ours, wire)
        await show("after")

serve("10.96.0.10", b"\\x02db\\x03svc\\x07cluster\\x05local", 1)
serve("172.16.0.53", b"\\x03web\\x03red\\x07example", 9)
asyncio.run(main())
"""


def test_a_name_of_a_wire_is_found_while_the_wire_is_up(tmp_path):
    """By its short and its long form, from Request to Close; names of the cluster are found all the time."""
    if not Path("/etc/resolv.conf").exists():
        pytest.skip("nothing can be mounted at /etc/resolv.conf: it does not exist here")
    path = tmp_path / "resolv.conf"
    path.write_text(POD)
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    play = (
        "ip link set lo up && ip addr add 10.96.0.10/32 dev lo && ip addr add 172.16.0.53/32 dev lo && "
        'mount --bind "$1/resolv.conf" /etc/resolv.conf && '
        '{ [ ! -e /etc/nsswitch.conf ] || mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf; } && '
        'exec "$2" -c "$3"'
    )
    argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", play, "sh"]
    done = subprocess.run(
        [*argv, tmp_path, sys.executable, IN_THE_POD],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith(("before", "meanwhile", "after"))]
    assert found == [
        "before unknown unknown 172.16.0.1 172.16.0.1 unknown",
        "meanwhile 172.16.0.9 172.16.0.9 172.16.0.1 172.16.0.1 unknown",
        "after unknown unknown 172.16.0.1 172.16.0.1 unknown",
    ], done.stdout + done.stderr
    assert path.read_text() == POD
