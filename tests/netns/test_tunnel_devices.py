"""Wires between two nodes by each kind of tunnel that this kernel can make."""

import asyncio
import errno
import os
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import datapath_lab as lab
import payload_lab
import pytest
import tunnel_lab
import vxlan_lab
from vxlan_lab import both, closed, run

from nsmesh.datapath import netns, segments
from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.base import TunnelRefused, TunnelTaken
from nsmesh.datapath.probe import answers

pytestmark = pytest.mark.root

LACKING = {kind: lacks(kind) for kind in tunnel_lab.KINDS}


def reaches(path, address, size=56, seconds=5.0):
    """Say whether an echo comes back within some seconds: a first packet may wait for a handshake."""
    end = time.monotonic() + seconds
    while not vxlan_lab.pings(path, address, size):
        if time.monotonic() > end:
            return False
    return True


def too_long(path, address, size):
    """Say what a sender hears of an echo that may not be cut and does not fit."""
    done = vxlan_lab.pinged(path, address, size)
    return done.stdout + done.stderr


def bare_packet(interface, data):
    """Send what may be no packet at all through an interface without frames; the kernel's refuses some."""
    kind = 0x86DD if data[:1] and data[0] >> 4 == 6 else 0x0800
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        try:
            out.sendto(data or b"\0", (interface, kind))
        except OSError as error:
            if error.errno != errno.EPROTONOSUPPORT:
                raise


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
@pytest.mark.parametrize("kind", tunnel_lab.KINDS)
def test_a_wire_joins_two_nodes(kind, payload, family):
    """Both families pass; a packet of the MTU crosses, and one byte more is an error at its sender."""
    tunnel_lab.able(kind)
    if payload not in tunnel_lab.KINDS[kind].payloads:
        pytest.skip(f"{kind} does not carry {payload}")
    if family not in tunnel_lab.KINDS[kind].headers:
        pytest.skip(f"{kind} needs an underlay of the other family")

    async def main(found):
        first, second = tunnel_lab.wires(found, kind, family=family, payload=payload)
        here, there = await both(found, first, second)
        mtu = first.b.mtu
        assert lab.link(found.pod_a, "nsm-1")["mtu"] == mtu
        assert reaches(found.pod_a, "10.0.1.2")
        assert reaches(found.pod_b, "fd00:1::1")
        for address, header in (("10.0.1.2", 28), ("fd00:1::2", 48)):
            assert vxlan_lab.pings(found.pod_a, address, mtu - header)
            assert f"mtu={mtu}" in too_long(found.pod_a, address, mtu - header + 1).replace("mtu: ", "mtu=")
        assert lab.names(found.pod_a) == {"nsm-1"}
        assert lab.names(found.a) == {"under", *([segments.name_of(first.id)] if kind == "SRV6" else [])}
        assert (await here.apply(first)).outcome == "unchanged"
        await here.remove(first.id)
        await here.drain()
        assert lab.names(found.pod_a) == set()
        assert lab.names(found.a) == {"under"}
        await closed(here, there)

    run(main, family=family)


@pytest.mark.parametrize("kind", [kind for kind, made in tunnel_lab.KINDS.items() if 4 in made.headers])
def test_the_largest_packet_fits_the_underlay_whole(kind):
    """What is around a packet is no more than the mechanism says: nothing is cut into pieces."""
    tunnel_lab.able(kind)

    async def main(found):
        first, second = tunnel_lab.wires(found, kind)
        here, there = await both(found, first, second)
        assert reaches(found.pod_a, "10.0.1.2")
        before = netns.call_in(found.a, fragments)
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2", first.b.mtu - 28)
        assert netns.call_in(found.a, fragments) == before
        await closed(here, there)

    def fragments():
        rows = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
        rows = [row for row in rows if row[0] == "Ip:"]
        return dict(zip(*rows, strict=True))["FragCreates"]

    run(main)


class TestWireguard:
    """What is its own about WireGuard."""

    @pytest.fixture(autouse=True)
    def able(self):
        tunnel_lab.able("WIREGUARD")

    @staticmethod
    def programs():
        """Return the wireguard-go processes below this one."""
        found = subprocess.run(["ps", "-eo", "pid,args"], check=True, capture_output=True, text=True).stdout
        return [line for line in found.splitlines() if f"wireguard-go -f nsm-{os.getpid():x}-" in line]

    def test_its_program_and_its_keys_leave_nothing(self, tmp_path):
        """Closed, failed and ended: no process, no device, and no key in any file or command line."""

        async def main(found):
            first, second = tunnel_lab.wires(found, "WIREGUARD")
            here, there = await both(found, first, second)
            assert reaches(found.pod_a, "10.0.1.2")
            secret = first.b.private_key.reveal().hex()
            assert secret not in "".join(self.programs())
            assert secret not in repr(first)
            assert not list(Path("/run/wireguard").glob("nsm-*")) if Path("/run/wireguard").exists() else True
            await here.remove(first.id)
            await here.drain()
            assert lab.names(found.pod_a) == set()
            await closed(here, there)
            return lab.names(found.pod_b)

        before = len(self.programs())
        assert run(main) in (set(), {"nse-1"})
        assert len(self.programs()) == before

    def test_what_is_no_ip_does_not_pass(self):
        """It carries bare packets, has no filter, and what is no whole IP packet ends at its device."""

        async def main(found):
            first, second = tunnel_lab.wires(found, "WIREGUARD")
            here, there = await both(found, first, second)
            assert reaches(found.pod_a, "10.0.1.2")
            packets = {name: data for name, (_, data) in payload_lab.FRAMES.items()}
            whole = {name for name in packets if payload_lab.passes("IP", name)} - {"ARP"}
            with payload_lab.ears((found.pod_b, "nse-1")) as (far,):
                far.settimeout(2.0)
                last = payload_lab.v4(17, b"the last one")
                for data in [*packets.values(), last]:
                    await asyncio.to_thread(netns.call_in, found.pod_a, partial(bare_packet, "nsm-1", data))
                came = []
                while last not in came:
                    came.append(far.recv(65536))
            named = {name for name, data in packets.items() if data in came}
            assert named == {
                name for name, data in packets.items() if data in {packets[one] for one in whole}
            }
            assert here.refused() == there.refused() == {}
            await closed(here, there)

        run(main)

    def test_a_wire_without_link_addresses_can_be_probed(self):
        """Both families: alive, and not for an address that nobody has."""

        async def main(found):
            first, second = tunnel_lab.wires(found, "WIREGUARD")
            here, there = await both(found, first, second)
            for net in ("10.0.1.", "fd00:1::"):
                assert await answers(found.pod_a, "nsm-1", f"{net}1", f"{net}2", 3)
                assert not await answers(found.pod_a, "nsm-1", f"{net}1", f"{net}9", 0.1)
            assert not await answers(found.pod_a, "nsm-1", "10.0.1.1", "fd00:1::2", 0.1)
            await closed(here, there)

        run(main)

    def test_a_program_that_dies_comes_back_with_its_wire(self):
        """The device is made again in the pod, with the same keys, and packets pass."""

        async def main(found):
            first, second = tunnel_lab.wires(found, "WIREGUARD")
            here, there = await both(found, first, second)
            assert reaches(found.pod_a, "10.0.1.2")
            running = here._tunnels._wireguard._running[first.id]
            if running.child is None:
                pytest.skip("the kernel makes them")
            running.child._process.kill()
            for _ in range(300):
                await asyncio.sleep(0.02)
                if "nsm-1" in lab.names(found.pod_a) and running.child.restarts:
                    break
            assert await asyncio.to_thread(reaches, found.pod_a, "10.0.1.2", 56, 15.0)
            await closed(here, there)

        run(main)

    def test_another_key_is_another_tunnel(self):
        """Whoever has not the agreed key gets nothing through; the right one works again at once."""

        async def main(found):
            first, second = tunnel_lab.wires(found, "WIREGUARD")
            here, there = await both(found, first, second)
            assert reaches(found.pod_a, "10.0.1.2")
            stranger = replace(first.b, private_key=second.a.private_key)
            assert (await here.apply(replace(first, b=stranger))).outcome in {"changed", "created"}
            assert not reaches(found.pod_a, "10.0.1.2", seconds=0.5)
            await here.apply(first)
            assert reaches(found.pod_a, "10.0.1.2", seconds=15)
            await closed(here, there)

        run(main)

    def test_a_port_that_is_taken_is_told(self):
        """Of another wire or program: TunnelTaken, and nothing is left."""

        async def main(found):
            def bound():
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind(("", first.b.local_port))
                return sock

            first, _ = tunnel_lab.wires(found, "WIREGUARD")
            here, there = found.drivers()
            with (
                netns.call_in(found.a, bound),
                pytest.raises(TunnelTaken, match=f"UDP port {first.b.local_port}"),
            ):
                await here.apply(first)
            assert lab.names(found.pod_a) == set()
            assert (await here.apply(first)).outcome == "created"
            await closed(here, there)

        run(main)

    def test_without_its_program_it_is_refused(self, monkeypatch):
        """The next mechanism is tried then; the error says what is not here."""
        if not LACKING["WIREGUARD"] and shutil.which("wireguard-go") is None:
            pytest.skip("the kernel makes them")
        monkeypatch.setattr("nsmesh.datapath.tunnels.wireguard_by_kernel", lambda: False)
        monkeypatch.setattr("nsmesh.datapath.wireguard_go.PROGRAM", "wireguard-gone")

        async def main(found):
            first, _ = tunnel_lab.wires(found, "WIREGUARD")
            here, there = found.drivers()
            with pytest.raises(TunnelRefused, match="wireguard-go for connection near-1 did not start"):
                await here.apply(first)
            assert lab.names(found.pod_a) == set()
            await closed(here, there)

        run(main)


def test_what_the_kernel_cannot_make_is_refused():
    """A tunnel of a kind that is missing: TunnelRefused, nothing is left, and the next one can be made."""
    missing = [kind for kind, reason in LACKING.items() if reason]
    if not missing:
        pytest.skip("this kernel makes them all")

    async def main(found):
        here, there = found.drivers()
        for kind in missing:
            first, _ = tunnel_lab.wires(found, kind)
            with pytest.raises(TunnelRefused):
                await here.apply(first)
            assert lab.names(found.pod_a) == set()
        first, second = tunnel_lab.wires(found, "VXLAN")
        await here.apply(first)
        await there.apply(second)
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        await closed(here, there)

    run(main)
