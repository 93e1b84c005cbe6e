"""For tests of VLANs: a node with a NIC that leads out of the mesh, pods, and what is on the wire."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import datapath_lab as lab

from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.model.tunnels import VlanPort

OUTSIDE = Path(__file__).parents[2] / "examples" / "vlan-breakout" / "outside.py"
NIC = "ext0"
RECEIVE = """
import socket, sys
s = socket.create_server((sys.argv[1], 7)); s.settimeout(30); print(flush=True)
c = s.accept()[0]
sys.stdout.buffer.write(b"".join(iter(lambda: c.recv(65536), b"")))
"""
SEND = """
import socket, sys
c = socket.create_connection((sys.argv[1], 7), 30); c.sendall(sys.stdin.buffer.read())
"""
ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 0x10

ODD = b"\xff" * 6 + bytes.fromhex("020000000001 9999") + b"no packet" * 6
"""A frame of an EtherType that nobody knows, to all."""


@dataclass(frozen=True)
class Place:
    """Paths of the namespaces: a ``node`` with a NIC, what is ``outside``, and ``pods``."""

    node: str
    outside: str
    pods: tuple[str, ...]


@contextmanager
def place(pods: int = 2, mtu: int = 1500) -> Iterator[Place]:
    """Yield a node whose NIC leads outside."""
    with lab.spaces(2 + pods) as paths:
        node, outside = (Path(path).name for path in paths[:2])
        command = (
            f"ip link add {NIC} netns {node} mtu {mtu} type veth peer name eth0 netns {outside} mtu {mtu}"
        )
        subprocess.run(command.split(), check=True)
        lab.run(node, "ip", "link", "set", NIC, "up")
        lab.run(outside, "ip", "link", "set", "eth0", "up")
        yield Place(paths[0], paths[1], tuple(paths[2:]))


def wire(found: Place, pod: int, vlan: int, *, payload: str = "ETHERNET", nic: str = NIC, mtu: int = 1500):
    """Return the wire of a pod onto a VLAN; its addresses end in its number + 1, in a net of the VLAN."""
    near = KernelPort(
        found.pods[pod],
        f"nsm-{vlan}",
        mtu=mtu,
        addresses=(address4(pod, vlan), address6(pod, vlan)),
    )
    return CrossConnect(f"wire-{pod}-{vlan}", near, VlanPort(nic, vlan, mtu), payload)


def address4(number: int, vlan: int) -> str:
    return f"10.{vlan >> 8}.{vlan & 0xFF}.{number + 1}/24"


def address6(number: int, vlan: int) -> str:
    return f"fd00:{vlan:x}::{number + 1:x}/64"


def host(text: str) -> str:
    return text.partition("/")[0]


@contextmanager
def outsider(found: Place, vlan: int, number: int = 253) -> Iterator[tuple[str, str]]:
    """Yield the addresses of a host outside that is on a VLAN."""
    addresses = address4(number, vlan), address6(number, vlan)
    argv = ["ip", "netns", "exec", Path(found.outside).name, sys.executable, str(OUTSIDE), "eth0", str(vlan)]
    process = subprocess.Popen([*argv, *addresses], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "is up" in process.stdout.readline()
        yield host(addresses[0]), host(addresses[1])
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def ear(path: str, name: str) -> Iterator[socket.socket]:
    """Yield a packet socket that hears an interface, with the tags that the kernel takes off."""

    def open_there() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        made.bind((name, ETH_P_ALL))
        return made

    with netns.call_in(path, open_there) as heard:
        yield heard


def hear(heard: socket.socket, pattern: bytes, patience: float = 2.0) -> bytes | None:
    """Return the frame with ``pattern`` in it as it was on the wire, its tag in place, or None."""
    end = time.monotonic() + patience
    while (left := end - time.monotonic()) > 0:
        heard.settimeout(left)
        try:
            data, about, _, sender = heard.recvmsg(65536, 256)
        except TimeoutError:
            return None
        if pattern not in data or sender[2] == socket.PACKET_OUTGOING:
            continue
        for _, kind, value in about:
            status, _, _, _, _, tci, protocol = struct.unpack_from("=IIIHHHH", value)
            if kind == PACKET_AUXDATA and status & TP_STATUS_VLAN_VALID:
                return data[:12] + struct.pack(">HH", protocol, tci) + data[12:]
        return data
    return None


def say(path: str, name: str, frame: bytes) -> None:
    """Send a frame as it is out of an interface."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as made:
            made.bind((name, 0))
            made.send(frame)

    netns.call_in(path, send)


def pings(path: str, address: str, size: int = 56, count: int = 3) -> bool:
    """Whether one of some pings is answered; the first may be lost on a link that is new."""
    argv = ["ip", "netns", "exec", Path(path).name, "ping", "-c1", "-W1", "-Mdo", f"-s{size}", address]
    return any(subprocess.run(argv, check=False, capture_output=True).returncode == 0 for _ in range(count))


def stream(server: str, client: str, address: str) -> bool:
    """Send a megabyte from one namespace to another by TCP, and return whether it came as it went."""
    sent = bytes(range(256)) * 4096
    inside = [["nsenter", f"--net={space}", sys.executable, "-c"] for space in (server, client)]
    with subprocess.Popen([*inside[0], RECEIVE, address], stdout=subprocess.PIPE) as there:
        assert there.stdout is not None
        assert there.stdout.readline() == b"\n"
        subprocess.run([*inside[1], SEND, address], input=sent, check=True, timeout=60)
        return there.stdout.read() == sent


async def pinged(*given, **more) -> bool:
    """Say the same as :func:`pings`, while the loop goes on."""
    return await asyncio.to_thread(pings, *given, **more)


async def exactly_tagged(found: Place, v4: str, v6: str, heard: socket.socket) -> None:
    """Check that the first pod, on VLAN 100, reaches what is outside up to the MTU, with the exact tag."""
    assert await pinged(found.pods[0], v4, 1472, count=20)
    assert await pinged(found.pods[0], v6, 1452)
    assert not await pinged(found.pods[0], v4, 1473, count=1)
    frame = hear(heard, bytes(range(0x10, 0x30)))
    assert frame is not None
    assert frame[12:18] == bytes.fromhex("8100 0064 0800")
