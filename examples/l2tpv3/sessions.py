"""Ethernet frames in L2TPv3, sent and answered by hand: for kernels that have no L2TP of their own.

    python3 sessions.py answer                         send what comes in back, in the session after its own
    python3 sessions.py send ADDRESS SESSION TEXT      send a frame over IP and over UDP, wait for the answers

Static sessions (RFC 3931): no control connection, no cookie, no sublayer.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys

IPPROTO_L2TP, L2TP_PORT = 115, 1701
OVER_IP = struct.Struct(">I")
"""The session."""
OVER_UDP = struct.Struct(">HHI")
"""Flags and version, reserved, the session."""
VERSION = 3
FRAME = bytes.fromhex("020000000002 020000000001 88b5")
"""The header of the frame inside: addresses, and an EtherType for experiments."""
TRIES, PAUSE = 20, 0.5
"""How often a frame is sent, and how long an answer is waited for: the other end may not listen yet."""


def opened() -> tuple[socket.socket, socket.socket]:
    """Return a socket for L2TPv3 over IP and one for UDP."""
    bare = socket.socket(socket.AF_INET, socket.SOCK_RAW, IPPROTO_L2TP)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", L2TP_PORT))
    return bare, datagrams


def over_ip(session: int, frame: bytes) -> bytes:
    """Return a data message over IP."""
    return OVER_IP.pack(session) + frame


def over_udp(session: int, frame: bytes) -> bytes:
    """Return a data message over UDP."""
    return OVER_UDP.pack(VERSION, 0, session) + frame


def from_ip(packet: bytes) -> tuple[int, bytes]:
    """Return session and frame of what a raw socket has received: an IPv4 packet with its header."""
    start = (packet[0] & 0xF) * 4
    return OVER_IP.unpack_from(packet, start)[0], packet[start + OVER_IP.size :]


def answer() -> None:
    """Send frames back until the end."""
    bare, datagrams = opened()
    with bare, datagrams, selectors.DefaultSelector() as ready:
        ready.register(bare, selectors.EVENT_READ)
        ready.register(datagrams, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is bare:
                    packet, source = bare.recvfrom(2048)
                    session, frame = from_ip(packet)
                    bare.sendto(over_ip(session + 1, frame), source)
                else:
                    message, source = datagrams.recvfrom(2048)
                    session = OVER_UDP.unpack_from(message)[2]
                    datagrams.sendto(over_udp(session + 1, message[OVER_UDP.size :]), source)


def asked(sock: socket.socket, message: bytes, to: tuple[str, int]) -> bytes:
    """Send a message until something comes back, and return that."""
    sock.settimeout(PAUSE)
    for _ in range(TRIES):
        sock.sendto(message, to)
        try:
            return sock.recv(2048)
        except TimeoutError:
            continue
    sys.exit(f"nothing came back from {to[0]}")


def send(address: str, session: int, text: str) -> None:
    """Send a frame over IP and one over UDP, and say what comes back."""
    bare, datagrams = opened()
    frame = FRAME + text.encode()
    with bare, datagrams:
        back, inside = from_ip(asked(bare, over_ip(session, frame), (address, 0)))
        print(f"over IP: session {session} out, session {back} back: {inside[len(FRAME) :].decode()}")
        message = asked(datagrams, over_udp(session, frame), (address, L2TP_PORT))
        back, inside = OVER_UDP.unpack_from(message)[2], message[OVER_UDP.size :]
        print(f"over UDP: session {session} out, session {back} back: {inside[len(FRAME) :].decode()}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["answer"]:
            answer()
        case ["send", address, session, text]:
            send(address, int(session), text)
        case _:
            sys.exit(__doc__)
