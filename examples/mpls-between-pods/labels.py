"""Frames with MPLS labels, sent and answered by hand: for kernels that have no MPLS of their own.

python3 labels.py answer                       swap labels (100 becomes 1100), send frames back
python3 labels.py send INTERFACE LABEL TEXT    push a label on a text, send it, wait for the answer
"""

from __future__ import annotations

import socket
import struct
import sys

ETH_P_MPLS_UC = 0x8847
BROADCAST = b"\xff" * 6
HEADER = struct.Struct(">6s6sHI")
SWAPPED = 1000
TRIES, PAUSE = 20, 0.5
"""How often a frame is sent, and how long an answer is waited for: the other end may not listen yet."""


def entry(label: int, ttl: int = 64) -> int:
    """Return an entry of a label stack, the only one: label, traffic class 0, bottom of the stack, TTL."""
    return label << 12 | 1 << 8 | ttl


def listening(interface: str = "") -> socket.socket:
    """Return a socket for labelled frames; an empty interface means all."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_MPLS_UC))
    if interface:
        made.bind((interface, ETH_P_MPLS_UC))
    return made


def answer() -> None:
    """Swap labels until the end."""
    with listening() as wire:
        while True:
            frame, (interface, *_) = wire.recvfrom(2048)
            target, source, kind, stack = HEADER.unpack_from(frame)
            label, ttl = stack >> 12, stack & 0xFF
            if target != BROADCAST:
                continue
            own = wire_mac(interface)
            swapped = HEADER.pack(source, own, kind, entry(label + SWAPPED, ttl - 1))
            wire.sendto(swapped + frame[HEADER.size :], (interface, ETH_P_MPLS_UC))


def wire_mac(interface: str) -> bytes:
    """Return the link address of an interface."""
    with listening(interface) as wire:
        mac: bytes = wire.getsockname()[4]
        return mac


def send(interface: str, label: int, text: str) -> None:
    """Send one frame, and say what comes back."""
    with listening(interface) as wire:
        wire.settimeout(PAUSE)
        own = wire_mac(interface)
        for _ in range(TRIES):
            wire.send(HEADER.pack(BROADCAST, own, ETH_P_MPLS_UC, entry(label)) + text.encode())
            try:
                frame = wire.recv(2048)
            except TimeoutError:
                continue
            target, _, _, stack = HEADER.unpack_from(frame)
            if target == own:
                said = frame[HEADER.size :].decode()
                print(f"label {label} out, label {stack >> 12} back, ttl {stack & 0xFF}: {said}")
                return
        sys.exit(f"nothing came back with a label through {interface}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["answer"]:
            answer()
        case ["send", interface, label, text]:
            send(interface, int(label), text)
        case _:
            sys.exit(__doc__)
