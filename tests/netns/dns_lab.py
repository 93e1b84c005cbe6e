"""A pod with two neighbours, each in a namespace of its own, that serve DNS: the cluster and a wire."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from nsmesh.datapath import netns

CLUSTER, WIRE, SECOND = "10.96.0.10", "172.16.0.53", "172.16.0.54"
LOCAL = "127.0.0.1"


class Zone:
    """A DNS server with a few names; ``asked`` has each question that came, by UDP and by TCP.

    ``mood``: "" answers, "silent" does not, any other is the name of a response code.
    """

    def __init__(self, namespace, address, names):
        self.namespace, self.address = namespace, address
        self.names = names
        self.asked = []
        self.mood = ""
        self.forged = False

    def reply(self, wire, *, tcp):
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append(("tcp" if tcp else "udp", name, dns.rdatatype.to_text(question.rdtype)))
        if self.mood == "silent":
            return None
        made = dns.message.make_response(query, recursion_available=True)
        if self.mood:
            made.set_rcode(dns.rcode.from_text(self.mood))
            return made.to_wire()
        known = {kind: texts for (known, kind), texts in self.names.items() if known == name}
        if not known:
            made.set_rcode(dns.rcode.NXDOMAIN)
        texts = known.get(dns.rdatatype.to_text(question.rdtype), [])
        if texts:
            made.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype, *texts))
        if not tcp:
            limit = max(query.payload, 512) if query.edns >= 0 else 512
            if len(made.to_wire()) > limit:
                made.answer.clear()
                made.flags |= dns.flags.TC
        return made.to_wire()

    async def serve(self):
        """Answer until cancelled."""
        with inside(self.namespace):
            tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (tcp, udp):
            one.bind((self.address, 53))
            one.settimeout(0)
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, sock=tcp)
        try:
            while True:
                wire, sender = await loop.sock_recvfrom(udp, 4096)
                reply = self.reply(wire, tcp=False)
                if reply is not None:
                    if self.forged:
                        udp.sendto(bytes([reply[0] ^ 1]) + reply[1:], sender)
                        udp.sendto(reply[:13] + bytes([reply[13] ^ 1]) + reply[14:], sender)
                    udp.sendto(reply, sender)
        finally:
            udp.close()
            server.close()

    async def _connected(self, reader, writer):
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                reply = self.reply(wire, tcp=True)
                if reply is not None:
                    writer.write(len(reply).to_bytes(2) + reply)
        writer.close()


@contextmanager
def inside(path):
    """Be in a namespace, by its path."""
    namespace = netns.open_netns(path)
    try:
        with netns.inside(namespace):
            yield
    finally:
        os.close(namespace)


def ip(path, *commands):
    for command in commands:
        subprocess.run(["ip", "-n", Path(path).name, *command.split()], check=True)


def play(scene, unique):
    """Run ``scene(cluster, wire, second)`` in the pod, with its neighbours' servers."""
    with netns.temporary(*(f"{unique}-{one}" for one in ("pod", "cluster", "wire"))) as (pod, cluster, wire):
        for path, far, ours, theirs in (
            (cluster, "eth0", "10.96.0.1/24", [f"{CLUSTER}/24"]),
            (wire, "nsm-1", "172.16.0.1/24", [f"{WIRE}/24", f"{SECOND}/24"]),
        ):
            peer = Path(path).name
            ip(pod, f"link add {far} type veth peer name {far} netns {peer}")
            ip(pod, f"addr add {ours} dev {far}", f"link set {far} up", "link set lo up")
            ip(path, f"link set {far} up", *(f"addr add {one} dev {far}" for one in theirs))

        async def main():
            servers = [
                Zone(cluster, CLUSTER, {("kubernetes.default.svc.cluster.local", "A"): ["10.96.0.1"]}),
                Zone(wire, WIRE, {("web.red.example", "A"): ["172.16.0.9"]}),
                Zone(wire, SECOND, {("web.red.example", "A"): ["172.16.0.9"]}),
            ]
            tasks = [asyncio.create_task(one.serve()) for one in servers]
            try:
                await asyncio.sleep(0)
                async with asyncio.timeout(50):
                    await scene(*servers)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        with inside(pod):
            asyncio.run(main())
