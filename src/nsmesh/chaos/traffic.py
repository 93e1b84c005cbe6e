"""The two ends of a numbered stream, each a process in its wire's namespace; it ends with SIGTERM.

``python -m nsmesh.chaos.traffic send ADDRESS PORT RATE`` prints ``ready`` and, at its end, JSON: ``sent``,
and ``pauses`` (number and nanoseconds) where it was late. ``... receive PORT FILE`` prints ``ready``, and
writes a record of every arrival into FILE at its end.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from nsmesh.chaos.packets import PACKET, RECORD

LATE = 2_000_000
"""Nanoseconds of lateness that are told."""
BURST = 64
"""Packets that a late sender sends at once: more would fill the kernel's queues, and be lost by our doing."""
BUFFER = 64 << 20
"""Bytes of the receiver's queue: some seconds, in which it may be kept from the processor."""
ROOM = 4 << 20
"""Bytes of the sender's queue."""
_SO_TIMESTAMPNS = 35
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_TIMESPEC = struct.Struct("=qq")


class _Stop(Exception):
    """SIGTERM came."""


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stop


def send(address: str, port: int, rate: int) -> None:
    """Send ``rate`` packets a second to ``address`` until SIGTERM, whatever the kernel says to each."""
    number, pauses, last = 0, [], time.time_ns()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # packets wait for a neighbour who does not answer: a sender who waited for them would look late
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, ROOM)
        start = time.monotonic_ns()
        signal.signal(signal.SIGTERM, _end)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        try:
            while True:
                due = (time.monotonic_ns() - start) * rate // 1_000_000_000 + 1
                for _ in range(min(due - number, BURST)):
                    now = time.time_ns()
                    late = now - last - 1_000_000_000 // rate
                    if late > LATE:
                        pauses.append((number, late))
                    last, packet, number = now, PACKET.pack(number, now), number + 1
                    try:
                        sock.sendto(packet, (address, port))
                    except OSError:
                        continue  # no route, no interface, no room: lost, as its user would see it
                time.sleep(max(0.001 if rate >= 1000 else 1 / rate, 0.0002))
        except _Stop:
            pass
    sys.stdout.write(json.dumps({"sent": number, "pauses": pauses}))


def receive(port: int, file: Path) -> None:
    """Note every packet that comes to ``port``, at whatever address, until SIGTERM."""
    found = bytearray()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.bind(("", port))
        signal.signal(signal.SIGTERM, _end)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        try:
            while True:
                data, extra, _, _ = sock.recvmsg(64, 64)
                seconds, nanoseconds = _TIMESPEC.unpack_from(extra[0][2])
                found += RECORD.pack(PACKET.unpack_from(data)[0], seconds * 1_000_000_000 + nanoseconds)
        except _Stop:
            pass
    file.write_bytes(found)


def main(words: list[str]) -> None:
    """Be one of the ends."""
    if words[0] == "send":
        send(words[1], int(words[2]), int(words[3]))
    else:
        receive(int(words[1]), Path(words[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
