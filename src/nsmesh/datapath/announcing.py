"""Telling the neighbours at once where an address is by now: gratuitous ARP, unsolicited advertisements.

An ARP announcement is a request for one's own address (RFC 5227, 3); for IPv6 it is a neighbour advertisement
to all nodes with the override flag (RFC 4861, 7.2.6). What has learnt another place (a bridge behind the
endpoint, a host behind a function in the middle) would else believe it for as long as its table does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_interface

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath import netns
from nsmesh.datapath.base import Announcing, CrossConnect, Datapath
from nsmesh.datapath.memif.answers import icmpv6
from nsmesh.model.messages import ETHERNET

log = structlog.get_logger()

PAUSES = (0.0, 0.2, 1.0)
"""Seconds before each announcement: the other end of a wire between nodes is made a moment later."""
_BROADCAST, _ALL_NODES_MAC = b"\xff" * 6, bytes.fromhex("333300000001")
_ALL_NODES = IPv6Address("ff02::1")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ADVERTISEMENT, _OVERRIDE, _TARGET_ADDRESS = 136, 0x2000_0000, b"\x02\x01"


def frames(mac: str, addresses: Iterable[str]) -> list[bytes]:
    """Return the frames by which an interface says that it has ``addresses`` (with or without a length)."""
    own = bytes.fromhex(mac.replace(":", ""))
    found = []
    for address in map(ip_interface, addresses):
        if isinstance(address, IPv4Interface):
            packed = address.ip.packed
            arp = _ARP.pack(1, 0x0800, 6, 4, 1, own, packed, bytes(6), packed)
            found.append(_BROADCAST + own + b"\x08\x06" + arp)
        else:
            found.append(_ALL_NODES_MAC + own + b"\x86\xdd" + _advertisement(address, own))
    return found


def _advertisement(address: IPv6Interface, mac: bytes) -> bytes:
    told = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _OVERRIDE)
    source = address.ip.packed
    return icmpv6(source, _ALL_NODES.packed, 255, told + source + _TARGET_ADDRESS + mac)


def announce(wire: CrossConnect, macs: tuple[str, str]) -> None:
    """Send them from each end of a wire on this node, where it carries frames; must be called in the loop."""
    if wire.payload != ETHERNET:
        return
    for port, mac in zip((wire.a, wire.b), macs, strict=True):
        if port not in wire.interfaces or not mac:
            continue
        name, said = port.name, frames(mac, port.addresses)
        try:
            sock = netns.call_in(port.netns, lambda: _opened(name))  # noqa: B023 - called at once
        except (MeshError, OSError) as error:
            log.debug("nothing announced", connection=wire.id, interface=name, error=str(error))
            continue
        try:
            for frame in said:
                sock.send(frame)
        except OSError as error:
            log.debug("not all announced", connection=wire.id, interface=name, error=str(error))
        finally:
            # it waits until the kernel hears nothing by it any more, some 20 ms
            asyncio.get_running_loop().run_in_executor(None, sock.close)


def _opened(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind((interface, 0))
    except OSError:
        sock.close()
        raise
    return sock


async def announce_often(datapath: Datapath, wire_id: str) -> None:
    """Have a driver announce the ends of a wire now and twice more, if it can."""
    if not isinstance(datapath, Announcing):
        return
    for pause in PAUSES:
        await asyncio.sleep(pause)
        datapath.announce(wire_id)
