"""The resolver file as a pod has it: a mount at /etc/resolv.conf, read by the resolver of the C library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

POD = "nameserver 127.0.0.2\noptions timeout:1 attempts:1\n"

IN_THE_POD = """
import asyncio, socket, threading
from pathlib import Path

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Tail, chain
from nsmesh.core.begin_client import BeginClient
from nsmesh.elements.dns_context import DnsContext
from nsmesh.elements.keep_resolver import KeepResolver
from nsmesh.model.messages import Connection, DNSConfig, NetworkServiceRequest

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))

def serve():
    while True:
        query, sender = server.recvfrom(512)
        question = query[12 : query.index(0, 12) + 5]
        known = question.startswith(b"\\x03web\\x03red\\x07example\\x00\\x00\\x01")
        flags = b"\\x81\\x80" if known else b"\\x81\\x83"
        record = b"\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x3c\\0\\x04" + bytes([172, 16, 0, 9])
        answer = record if known else b""
        counts = b"\\0\\x01" + (b"\\0\\x01" if known else b"\\0\\0") + b"\\0\\0\\0\\0"
        server.sendto(query[:2] + flags + counts + question + answer, sender)

def look_up():
    try:
        return socket.gethostbyname("web")
    except OSError:
        return "unknown"

async def main():
    config = DNSConfig(dns_server_ips=["127.0.0.1"], search_domains=["red.example"])
    keeper = KeepResolver(Path("/etc/resolv.conf"))
    made = chain(BeginClient(), keeper, DnsContext([config]), end=Tail(), name="client nsc")
    async with made.running():
        ours, wire = Call(peer=Peer(in_process=True)), Connection(id="wire", network_service="s")
        print(look_up())
        await made.request(ours, NetworkServiceRequest(connection=wire))
        print(look_up())
        await made.close(ours, wire)
        print(look_up())

threading.Thread(target=serve, daemon=True).start()
asyncio.run(main())
"""


def test_a_name_of_a_wire_is_found_while_the_wire_is_up(tmp_path):
    """A name in the wire's search domain is found from Request to Close; the mount is written in place."""
    if not Path("/etc/resolv.conf").exists():
        pytest.skip("nothing can be mounted at /etc/resolv.conf: it does not exist here")
    path = tmp_path / "resolv.conf"
    path.write_text(POD)
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    play = (
        'ip link set lo up && mount --bind "$1/resolv.conf" /etc/resolv.conf && '
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
    found = [line for line in done.stdout.splitlines() if line in {"unknown", "172.16.0.9"}]
    assert found == ["unknown", "172.16.0.9", "unknown"], done.stdout + done.stderr
    assert path.read_text() == POD
