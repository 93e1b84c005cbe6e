"""A host outside of the mesh on a VLAN, for kernels that have no VLAN devices.

    python3 outside.py INTERFACE VLAN ADDRESS/LENGTH...

makes an interface INTERFACE.VLAN with these addresses, as this would do where the kernel has VLAN devices:

    ip link add link INTERFACE name INTERFACE.VLAN type vlan id VLAN

It copies frames one by one between a tap device and a packet socket, until it is ended.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 263, 8, 4
TP_STATUS_VLAN_VALID = 0x10
ETH_P_ALL, ETH_P_8021Q = 0x0003, 0x8100
AUXDATA = struct.Struct("=IIIHHHH")


def tap(name: str) -> int:
    """Make a tap device and return its descriptor: frames of bare Ethernet."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def receive(wire: socket.socket) -> tuple[int, bytes] | None:
    """Return the tag of a frame, 0 for none, and the frame without it; None for one that went out."""
    data, about, _, address = wire.recvmsg(65536, 256)
    if address[2] == PACKET_OUTGOING:
        return None
    for level, kind, value in about:  # the kernel takes the tag off before we see the frame
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, *_, tci, protocol = AUXDATA.unpack_from(value)
            if status & TP_STATUS_VLAN_VALID and protocol == ETH_P_8021Q:
                return tci & 0xFFF, data
    return 0, data


def main() -> None:
    """Copy frames until SIGTERM."""
    interface, vlan, addresses = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    name = f"{interface}.{vlan}"
    device = tap(name)
    for address in addresses:
        nodad = ["nodad"] if ":" in address else []
        subprocess.run(["ip", "address", "add", address, "dev", name, *nodad], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((interface, ETH_P_ALL))
    tag = struct.pack(">HH", ETH_P_8021Q, vlan)
    both = selectors.DefaultSelector()
    both.register(device, selectors.EVENT_READ)
    both.register(wire, selectors.EVENT_READ)
    print(f"{name} is up", flush=True)
    while True:
        for key, _ in both.select():
            if key.fileobj is wire:
                found = receive(wire)
                if found is not None and found[0] == vlan:
                    os.write(device, found[1])
            else:
                frame = os.read(device, 65536)
                wire.send(frame[:12] + tag + frame[12:])


if __name__ == "__main__":
    main()
