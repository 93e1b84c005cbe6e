"""Payloads on real wires: what a wire of each payload carries, byte for byte, and that it counts the rest."""

import asyncio
import errno
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import datapath_lab as lab
import payload_lab
import pytest
import tunnel_lab
import vxlan_lab

from nsmesh.core.errors import Invalid
from nsmesh.datapath import netns, payload_counts
from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.base import CrossConnect, KernelPort, Route
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.payload_counts import refused_at

pytestmark = pytest.mark.root
KERNELS = ("runt", "half an IPv4 header")
"""Frames that a VXLAN device of the kernel drops by itself."""
PAYLOADS = ["ETHERNET", "IP", "MPLS", "L2TP"]
FRAMED = ["VXLAN", "GENEVE", "GRE"]
"""Tunnels of frames; by GRE packets of IP may go bare."""


def total(*counts):
    return sum(sum(kinds.values()) for found in counts for kinds in found.values())


def local(a, b, payload="IP"):
    """Return a wire without addresses between two namespaces."""
    return CrossConnect(
        "w1",
        KernelPort(a, "one", vxlan_lab.NEAR_MAC, numbered=False),
        KernelPort(b, "two", vxlan_lab.FAR_MAC, numbered=False),
        payload,
    )


def tc(space, text):
    return lab.run(space, "tc", *text.split())


def bare(wire):
    """Return a wire without addresses, so that nobody but the test sends anything."""
    ends = [
        KernelPort(port.netns, port.name, port.mac, port.mtu, numbered=False)
        if isinstance(port, KernelPort)
        else port
        for port in (wire.a, wire.b)
    ]
    return replace(wire, a=ends[0], b=ends[1])


def exchange(ends, payload, but=()):
    """Send all frames in both directions; return what was lost that should pass, and the reverse."""
    wrong = []
    names = [name for name in payload_lab.FRAMES if name not in but]
    shall = [name for name in names if payload_lab.passes(payload, name)]
    a, b = payload_lab.A, payload_lab.B
    with payload_lab.ears(*ends) as (near, far):
        payload_lab.awaken(near, far, shall[0])
        for out, into, macs in ((near, far, (a, b)), (far, near, (b, a))):
            for name in names:
                payload_lab.send(out, payload_lab.frame(name, *macs))
            came = Counter(payload_lab.heard(into, len(shall), macs[0]))
            wanted = Counter(payload_lab.frame(name, *macs) for name in shall)
            known = {payload_lab.frame(name, *macs): name for name in names}
            wrong += [f"lost: {known.get(one, one)}" for one in wanted - came]
            wrong += [f"passed: {known.get(one, one)}" for one in came - wanted]
    return wrong


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_local_wire_carries_its_payload_and_nothing_else(payload):
    """Both ways, byte for byte; what is refused is counted, each frame once."""

    async def main(a, b):
        driver = LinuxDatapath()
        await driver.apply(local(a, b, payload))
        assert exchange(((a, "one"), (b, "two")), payload) == []
        refused = sum(not payload_lab.passes(payload, name) for name in payload_lab.FRAMES)
        assert total(driver.refused()) == 2 * refused
        await driver.remove("w1")
        assert driver.refused() == {}
        await driver.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("kind", FRAMED)
def test_a_wire_between_nodes_carries_its_payload_and_nothing_else(kind, payload):
    """As a local wire; what is refused does not cross the underlay."""
    tunnel_lab.able(kind)
    if (kind, payload) == ("GRE", "IP"):
        pytest.skip("bare packets: there are no frames to refuse")

    async def main(found):
        first, second = (bare(wire) for wire in tunnel_lab.wires(found, kind, payload=payload))
        here, there = found.drivers()
        await here.apply(first)
        await there.apply(second)
        ends = ((found.pod_a, "nsm-1"), (found.pod_b, "nse-1"))
        assert exchange(ends, payload, KERNELS if payload == "ETHERNET" else ()) == []
        refused = sum(not payload_lab.passes(payload, name) for name in payload_lab.FRAMES)
        assert total(here.refused(), there.refused()) == 2 * refused
        await here.aclose()
        await there.aclose()

    with vxlan_lab.nodes() as found:
        asyncio.run(main(found))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_tunnel_that_ends_in_the_node_is_filtered_too(payload):
    """One of the two filters is in the node, in front of what leads frames to the tunnel."""

    async def main(found):
        first, second = (bare(wire) for wire in tunnel_lab.wires(found, "VXLAN", payload=payload))
        here, there = ApartDatapath(node=found.a, owner="a"), ApartDatapath(node=found.b, owner="b")
        for driver, wire in ((here, first), (there, second), (here, first)):
            await driver.apply(wire)
        ends = ((found.pod_a, "nsm-1"), (found.pod_b, "nse-1"))
        but = (*KERNELS, "MPLS without a label") if payload == "ETHERNET" else ()  # nor is that led on
        assert exchange(ends, payload, but) == []
        refused = sum(not payload_lab.passes(payload, name) for name in payload_lab.FRAMES)
        assert total(here.refused(), there.refused()) == 2 * refused
        await here.aclose()
        await there.aclose()

    with vxlan_lab.nodes() as found:
        asyncio.run(main(found))


def test_a_filter_that_was_passed_by_is_met_at_the_other_end():
    """A sender that goes past its own end's filter is stopped by the other's, which counts it."""

    async def main(a, b):
        driver = LinuxDatapath()
        await driver.apply(local(a, b))
        with payload_lab.ears((a, "one"), (b, "two")) as (near, far):
            payload_lab.awaken(near, far, "IPv4 UDP")
            deaf = netns.call_in(b, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            with deaf:
                netns.call_in(b, lambda: deaf.bind(("two", 0x9999)))
                near.setsockopt(263, 20, 1)  # PACKET_QDISC_BYPASS
                near.send(payload_lab.frame("unknown EtherType", payload_lab.A, payload_lab.B))
                assert payload_lab.heard(deaf, 1, payload_lab.A, 0.2) == []
        assert driver.refused() == {"w1": {"other": 1}}
        await driver.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_wire_whose_payload_changes_gets_the_new_filter():
    """In place, from each payload to each other; the interfaces stay; applied again nothing changes."""

    async def main(a, b):
        driver = LinuxDatapath()
        await driver.apply(local(a, b, "IP"))
        indexes = [lab.link(a, "one")["ifindex"], lab.link(b, "two")["ifindex"]]
        for payload in ("MPLS", "ETHERNET", "L2TP", "IP", "ETHERNET", "IP"):
            assert (await driver.apply(local(a, b, payload))).outcome == "changed", payload
            driver._records.clear()  # as after a restart
            assert (await driver.apply(local(a, b, payload))).outcome == "unchanged", payload
            assert exchange(((a, "one"), (b, "two")), payload) == [], payload
        assert indexes == [lab.link(a, "one")["ifindex"], lab.link(b, "two")["ifindex"]]
        await driver.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_filter_that_was_taken_away_is_put_back():
    """By the next driver that adopts the wire; the filter of somebody else, behind ours, stays."""

    async def main(a, b):
        driver = LinuxDatapath()
        await driver.apply(local(a, b))
        tc(a, "filter add dev one ingress prio 9 u32 match u32 0 0 classid 1:1")
        tc(a, "filter del dev one egress")
        tc(b, "qdisc del dev two clsact")
        again = LinuxDatapath(namespaces=lambda: [a, b])
        await again.has()
        assert (await again.apply(local(a, b))).outcome == "changed"
        assert exchange(((a, "one"), (b, "two")), "IP") == []
        assert "u32" in tc(a, "filter show dev one ingress")
        await driver.aclose()
        await again.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


COUNTING = """
import asyncio, sys
from nsmesh.core.errors import Invalid
from nsmesh.datapath import netns, payload_counts
from nsmesh.datapath.base import CrossConnect, KernelPort, Route
from nsmesh.datapath.linux import LinuxDatapath
ends = [KernelPort(path, name, numbered=False) for path, name in zip(sys.argv[1:], ("one", "two"))]
asyncio.run(LinuxDatapath().apply(CrossConnect("w1", *ends, "IP")))
"""


def test_what_an_earlier_process_has_counted_goes_on():
    """Its filters are taken over as they are, with their counters; anybody can read them by the wire's id."""

    async def main(a, b):
        send = ((a, "one"), (b, "two"))
        with payload_lab.ears(*send) as (near, far):
            payload_lab.awaken(near, far, "IPv4 UDP")
            for name in ("LLDP", "MPLS", "tagged IPv4"):
                payload_lab.send(near, payload_lab.frame(name, payload_lab.A, payload_lab.B))
        wanted = {"other": 1, "mpls": 1, "vlan": 1}
        driver = LinuxDatapath(namespaces=lambda: [a, b])
        await driver.has()
        wire = CrossConnect(
            "w1", KernelPort(a, "one", numbered=False), KernelPort(b, "two", numbered=False), "IP"
        )
        assert (await driver.apply(wire)).outcome == "unchanged"
        assert driver.refused() == {"w1": wanted}
        assert refused_at([a, b, "/run/netns/none"], {"w1"}) == wanted
        assert refused_at([a, b], {"w2"}) == {}
        samples = await payload_counts.REFUSED.samples()
        assert {one.labels["frame"]: one.value for one in samples} == wanted
        await driver.aclose()

    with lab.spaces() as (a, b):
        subprocess.run([sys.executable, "-c", COUNTING, a, b], check=True)
        asyncio.run(main(a, b))


def test_a_payload_that_is_none_is_refused():
    """Before anything is made."""

    async def main(a, b):
        driver = LinuxDatapath()
        with pytest.raises(Invalid, match=r"connection w1 has payload 'ATM', and no wire here carries that"):
            await driver.apply(local(a, b, "ATM"))
        assert lab.names(a) == set()
        await driver.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def sizes(space, target, mtu):
    """Return the error of a datagram that is just as large as fits, and of one a byte larger."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    level, option = (41, 23) if family == socket.AF_INET6 else (0, 10)  # IPV6_MTU_DISCOVER, IP_MTU_DISCOVER
    around = 48 if family == socket.AF_INET6 else 28
    found = []
    with netns.call_in(space, lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.setsockopt(level, option, 2)  # never in pieces
        for size in (mtu - around, mtu - around + 1):
            try:
                sock.sendto(bytes(size), (target, 9))
                found.append(0)
            except OSError as error:
                found.append(error.errno)
    return found


@pytest.mark.parametrize("mtu", [1280, 1450, 9000])
@pytest.mark.parametrize("where", ["local", "VXLAN"])
def test_a_packet_of_the_mtu_passes_and_a_byte_more_is_told(where, mtu):
    """IPv4 and IPv6: the larger one never leaves, and its sender hears that the message is too long."""

    async def main(found):
        if where == "local":
            drivers, wires = [LinuxDatapath()], [lab.simple(found.pod_a, found.pod_b, mtu=mtu)]
            wires = [replace(wires[0], b=replace(wires[0].b, mtu=mtu), payload="IP")]
            targets = "10.0.1.2", "fd00:1::2"
        else:
            drivers = list(found.drivers())
            wires = tunnel_lab.wires(found, "VXLAN", mtu=mtu + 50)
            targets = "10.0.1.2", "fd00:1::2"
        for driver, wire in zip(drivers, wires, strict=True):
            await driver.apply(wire)
        for target, around in zip(targets, (28, 48), strict=True):
            assert sizes(found.pod_a, target, mtu) == [0, errno.EMSGSIZE]
            assert any(vxlan_lab.pings(found.pod_a, target, mtu - around) for _ in range(3))
        assert sum(total(driver.refused()) for driver in drivers) == 0
        for driver in drivers:
            await driver.aclose()

    with vxlan_lab.nodes(mtu + 50) as found:
        asyncio.run(main(found))


@pytest.mark.parametrize("numbered", [True, False])
def test_a_wire_too_narrow_for_ipv6_is_made(numbered):
    """Below 1280 bytes the kernel has no IPv6 on an interface; IPv4 passes up to the MTU."""

    async def main(a, b):
        driver = LinuxDatapath()
        ends = [
            KernelPort(
                space, "wire", mtu=1000, addresses=(f"10.0.0.{own}/32",), routes=(Route(f"10.0.0.{peer}/32"),)
            )
            for space, own, peer in ((a, 1, 2), (b, 2, 1))
        ]
        wire = CrossConnect("w1", *(replace(end, numbered=numbered) for end in ends), "IP")
        await driver.apply(wire)
        if numbered:
            assert any(vxlan_lab.pings(a, "10.0.0.2", 1000 - 28) for _ in range(3))
            assert sizes(a, "10.0.0.2", 1000) == [0, errno.EMSGSIZE]
        driver._records.clear()
        assert (await driver.apply(wire)).outcome == "unchanged"
        await driver.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))
