"""Wires by segment routing: what is their own beside other tunnels (see test_tunnel_devices)."""

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path

import datapath_lab as lab
import payload_lab
import vxlan_lab
from srv6_lab import MARKS, OURS, ip, pings, run, wires
from test_payload_frames import bare, exchange, total
from vxlan_lab import both, closed

pytestmark = MARKS

FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/under/seg6_enabled")


def test_the_node_stays_as_it_is():
    """No forwarding, no rule, no route but one for a segment identifier; strict source checks do no harm."""

    async def main(found):
        for node in (found.a, found.b):
            lab.set_sysctl(node, "net/ipv4/conf/all/rp_filter", "1")
        before = [lab.sysctl(found.a, key) for key in FORWARDING]
        assert before == ["0", "0", "0"]
        first, second = wires(found)
        here, there = await both(found, first, second)
        assert pings(found.pod_a, "10.0.1.2")
        assert pings(found.pod_b, "fd00:1::1")
        assert [lab.sysctl(found.a, key) for key in FORWARDING] == before
        for family in ("-4", "-6"):
            assert lab.rules(found.a, family) == []
        routes = ip(found.a, OURS)
        assert routes.count("End.DX2") == 1
        assert routes.startswith(first.b.local_sid)
        await here.remove(first.id)
        await here.drain()
        assert ip(found.a, OURS) == ""
        await closed(here, there)

    run(main)


def test_a_wire_leads_to_its_other_end_and_not_to_the_node():
    """An address of either node is not reached through a wire, whatever the pod does."""

    async def main(found):
        first, second = wires(found)
        here, there = await both(found, first, second)
        assert pings(found.pod_a, "10.0.1.2")
        for node in (found.a, found.b):
            lab.run(node, "ip", "address", "add", "10.77.0.1/32", "dev", "lo")
        ip(found.pod_a, "route add 10.77.0.1 via 10.0.1.2 dev nsm-1 onlink")
        ip(found.pod_a, "-6 route add 2001:db8::/64 via fd00:1::2 dev nsm-1 onlink")
        for address in ("10.77.0.1", *vxlan_lab.UNDERLAY[6]):
            assert not pings(found.pod_a, address, 1)
        lab.run(found.pod_b, "ip", "address", "add", "10.77.0.1/32", "dev", "lo")
        assert pings(found.pod_a, "10.77.0.1", 1)
        await closed(here, there)

    run(main)


def test_its_payload_is_enforced():
    """As on every wire of payload IP, byte for byte and counted; ARP passes with it."""

    async def main(found):
        first, second = (bare(wire) for wire in wires(found))
        here, there = await both(found, first, second)
        await asyncio.to_thread(pings, found.a, vxlan_lab.UNDERLAY[6][1])
        assert exchange(((found.pod_a, "nsm-1"), (found.pod_b, "nse-1")), "IP") == []
        refused = sum(not payload_lab.passes("IP", name) for name in payload_lab.FRAMES)
        assert total(here.refused(), there.refused()) == 2 * refused
        await closed(here, there)

    run(main)


def test_a_tunnel_inside_and_large_segments_pass():
    """A stream of 20 MB through the wire, and through a VXLAN of the pods' own on it, arrives whole."""

    async def main(found):
        first, second = wires(found)
        here, there = await both(found, first, second)
        assert pings(found.pod_a, "10.0.1.2")
        for pod, dev, own, far in ((found.pod_a, "nsm-1", 1, 2), (found.pod_b, "nse-1", 2, 1)):
            spec = f"type vxlan id 5 dstport 4789 local 10.0.1.{own} remote 10.0.1.{far} dev {dev}"
            ip(pod, f"link add inner {spec}")
            ip(pod, f"address add 10.9.0.{own}/24 dev inner")
            ip(pod, "link set inner up")
        for address in ("10.0.1.2", "10.9.0.2"):
            assert await asyncio.to_thread(streamed, found.pod_a, found.pod_b, address) == 20_000_000
        await closed(here, there)

    run(main)


def streamed(near, far, address):
    """Send 20 MB over TCP and return how many bytes arrive."""
    listen = (
        "import socket\ns = socket.create_server(('', 7007)); print('up', flush=True)\n"
        "c, _ = s.accept(); c.settimeout(20); n = 0\n"
        "while data := c.recv(65536): n += len(data)\nprint(n)"
    )
    send = (
        f"import socket\nc = socket.create_connection(('{address}', 7007), 10)\n"
        "c.settimeout(20); c.sendall(bytes(20_000_000))"
    )
    enter = ["ip", "netns", "exec"]
    with subprocess.Popen(
        [*enter, Path(far).name, "python3", "-c", listen], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout.readline() == "up\n"
            subprocess.run(
                [*enter, Path(near).name, "python3", "-c", send], check=True, timeout=30, capture_output=True
            )
            return int(server.communicate(timeout=30)[0])
        finally:
            server.kill()


def test_ends_that_find_each_other_by_arp():
    """Without neighbours that the forwarders set, as behind a function in the middle."""

    async def main(found):
        first, second = wires(found)
        first, second = (
            replace(first, a=replace(first.a, neighbours=())),
            replace(second, b=replace(second.b, neighbours=())),
        )
        here, there = await both(found, first, second)
        assert pings(found.pod_a, "10.0.1.2")
        assert pings(found.pod_a, "fd00:1::2")
        await closed(here, there)

    run(main)
