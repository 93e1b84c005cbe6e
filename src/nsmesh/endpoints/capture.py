"""What is on a link: frames counted by class, and a search for texts that must not be there.

``python -m nsmesh.endpoints.capture --interface eth0 --seconds 5 --marker secret`` prints a report as JSON
and exits with 1 if a marker was seen or, with ``--only-wireguard``, if anything else than WireGuard and
the talk of the link itself (ARP, neighbour and multicast listener discovery) was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

from nsmesh.core.errors import MeshError, NotFound, Unauthorized
from nsmesh.datapath import netns

ARP = "arp"
NEIGHBOUR_DISCOVERY = "neighbour discovery"
LISTENER_DISCOVERY = "multicast listener discovery"
MESSAGES = {
    1: "wireguard handshake initiation",
    2: "wireguard handshake response",
    3: "wireguard cookie reply",
    4: "wireguard data",
}
"""Classes of WireGuard's packets by their message type."""
HARMLESS = frozenset({ARP, NEIGHBOUR_DISCOVERY, LISTENER_DISCOVERY, *MESSAGES.values()})
"""Classes that carry nothing of a user's in clear: WireGuard, and what a link says about itself."""

_ETH_P_ALL, _ETH_P_IP, _ETH_P_ARP, _ETH_P_8021Q, _ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x8100, 0x86DD
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER = 16 << 20
_LARGEST = 1 << 18
_UDP, _ICMPV6 = 17, 58
_DISCOVERY = {
    **dict.fromkeys(range(133, 138), NEIGHBOUR_DISCOVERY),
    **dict.fromkeys((130, 131, 132, 143), LISTENER_DISCOVERY),
}
_NAMES = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6"}
_EXTENSIONS = (0, 43, 60)


@dataclass(slots=True)
class Report:
    """What a capture has seen so far.

    ``classes`` frames by class; ``markers`` how many frames held each text; ``dropped`` how many frames the
    kernel could not keep for us, which should be 0 where absence is to be proven.
    """

    interface: str
    frames: int = 0
    bytes: int = 0
    dropped: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    markers: dict[str, int] = field(default_factory=dict)

    @property
    def others(self) -> dict[str, int]:
        """Classes that are not among :data:`HARMLESS`."""
        return {name: count for name, count in self.classes.items() if name not in HARMLESS}

    @property
    def clear(self) -> bool:
        """Whether some marker was seen in clear text."""
        return any(self.markers.values())


def classify(frame: bytes, ports: Iterable[int] = (51820,)) -> str:
    """Return the class of an Ethernet frame: one of :data:`HARMLESS`, or ``ipv4 tcp 443`` and the like.

    WireGuard is told by a UDP port of ``ports`` and its message type.
    """
    offset = 12
    ethertype = int.from_bytes(frame[offset : offset + 2])
    while ethertype == _ETH_P_8021Q:
        offset += 4
        ethertype = int.from_bytes(frame[offset : offset + 2])
    packet = frame[offset + 2 :]
    if ethertype == _ETH_P_ARP:
        return ARP
    if ethertype == _ETH_P_IP and len(packet) >= 20:
        tail = int.from_bytes(packet[6:8]) & 0x1FFF
        return _transport("ipv4", packet[9], b"" if tail else packet[(packet[0] & 15) * 4 :], ports)
    if ethertype == _ETH_P_IPV6 and len(packet) >= 40:
        protocol, rest = packet[6], packet[40:]
        while protocol in _EXTENSIONS and len(rest) >= 8:
            protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
        return _transport("ipv6", protocol, rest, ports)
    return f"ethertype 0x{ethertype:04x}"


def _transport(family: str, protocol: int, segment: bytes, ports: Iterable[int]) -> str:
    if protocol == _ICMPV6 and segment and segment[0] in _DISCOVERY:
        return _DISCOVERY[segment[0]]
    name = f"{family} {_NAMES.get(protocol, f'protocol {protocol}')}"
    if protocol not in {6, _UDP}:
        return name
    if len(segment) < 8:
        return f"{name} fragment"
    source, destination = struct.unpack_from("!HH", segment)
    if protocol == _UDP and {source, destination} & set(ports):
        kind, *zeros = segment[8:12] or (0,)
        if kind in MESSAGES and not any(zeros):
            return MESSAGES[kind]
    return f"{name} {min(source, destination)}"


@asynccontextmanager
async def capturing(
    interface: str, *, location: str = "", ports: Iterable[int] = (51820,), markers: Iterable[str] = ()
) -> AsyncIterator[Report]:
    """Count the frames that come and go on ``interface`` while the block runs; the report grows meanwhile.

    ``location`` is the path of a network namespace, empty for our own. Raises NotFound or Unauthorized.
    """
    report = Report(interface, markers=dict.fromkeys(markers, 0))
    wanted = {text: text.encode() for text in report.markers}
    ports = frozenset(ports)
    sock = netns.call_in(location, lambda: _open(interface)) if location else _open(interface)

    def drain() -> None:
        while True:
            try:
                frame = sock.recv(_LARGEST)
            except BlockingIOError:
                return
            report.frames += 1
            report.bytes += len(frame)
            report.classes[classify(frame, ports)] += 1
            for text, needle in wanted.items():
                report.markers[text] += needle in frame

    loop = asyncio.get_running_loop()
    loop.add_reader(sock, drain)
    try:
        yield report
    finally:
        loop.remove_reader(sock)
        drain()
        _, dropped = struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        report.dropped = dropped
        sock.close()


def _open(interface: str) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError:
        raise Unauthorized("capturing needs CAP_NET_RAW", remedy="run it as root") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.bind((interface, _ETH_P_ALL))
    except OSError as error:
        sock.close()
        raise NotFound(
            f"nothing can be captured on interface {interface}: {error.strerror}",
            remedy="ip link shows the interfaces of a namespace",
        ) from None
    return sock


async def _run(arguments: argparse.Namespace) -> Report:
    async with capturing(
        arguments.interface, location=arguments.netns, ports=arguments.port, markers=arguments.marker
    ) as report:
        await asyncio.sleep(arguments.seconds)
    return report


def main(argv: list[str]) -> int:
    """Capture as the command line says and print the report; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nsmesh.endpoints.capture")
    parser.add_argument("--interface", required=True)
    parser.add_argument("--netns", default="", help="path of a network namespace; default: this one")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--port", type=int, action="append", help="UDP port of WireGuard; default 51820")
    parser.add_argument("--marker", action="append", default=[], help="text that must not be seen")
    parser.add_argument("--only-wireguard", action="store_true", help="fail on anything else")
    arguments = parser.parse_args(argv)
    arguments.port = arguments.port or [51820]
    try:
        report = asyncio.run(_run(arguments))
    except MeshError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 2
    print(json.dumps({**asdict(report), "others": report.others}, indent=2))  # noqa: T201 - a command
    return int(report.clear or (arguments.only_wireguard and bool(report.others)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
