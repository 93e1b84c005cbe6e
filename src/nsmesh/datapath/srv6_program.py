"""The headend of a SRV6 wire as a program for the kernel: H.Encaps.L2 (RFC 8986). Pure.

It stands where frames of a wire come into the node. Each gets an IPv6 header and a segment routing header
with one segment in front, and leaves for the other node; no route, rule or forwarding of this node has a say.
"""

from __future__ import annotations

import socket
import struct

from nsmesh.datapath import bpf
from nsmesh.datapath.bpf import H, W

BPF_FUNC_SKB_STORE_BYTES, BPF_FUNC_REDIRECT, BPF_FUNC_SKB_CHANGE_HEAD = 9, 23, 43
BPF_FUNC_SKB_ADJUST_ROOM, BPF_FUNC_REDIRECT_NEIGH = 50, 152
BPF_ADJ_ROOM_MAC, BPF_F_INGRESS = 1, 1
BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH = 1 << 2, 1 << 6
BPF_ADJ_ROOM_ENCAP_L2_SHIFT = 56
TC_ACT_SHOT = 2

IPPROTO_ROUTING, IPPROTO_ETHERNET, ETH_P_IPV6 = 43, 143, 0x86DD
SRCRT_TYPE_4 = 4
"""IPV6_SRCRT_TYPE_4: the type of a segment routing header."""
HOP_LIMIT = 64
AGAIN = 0x6E_73_6D
"""Mark of a frame that comes in a second time, with all its headers. Marks of a pod do not get here."""

ETHERNET, IPV6, SRH = 14, 40, 24
HEADERS = ETHERNET + IPV6 + SRH
"""Bytes that come to a frame: all three, with one segment."""

_SKB_LEN, _SKB_MARK, _SKB_IFINDEX = 0, 8, 40
_FRAME, _LENGTH = 6, 8
_NEIGHBOUR, _NEIGHBOUR_SIZE = -24, 20
_MAC, _OUTER = -40, -120
"""Places on the stack: ``bpf_redir_neigh``, the frame's Ethernet header, what goes in front of the frame."""


def outer(local: str, sid: str) -> bytes:
    """Return the three headers that go in front of a frame; IPv6's length is left 0.

    The MACs are, too: they are the kernel's to find out, which it does for no group address.
    """
    source, segment = (socket.inet_pton(socket.AF_INET6, text) for text in (local, sid))
    header = struct.pack(">12xH", ETH_P_IPV6)
    header += struct.pack(">IHBB16s16s", 6 << 28, 0, IPPROTO_ROUTING, HOP_LIMIT, source, segment)
    return header + struct.pack(">BBBBBBH16s", IPPROTO_ETHERNET, 2, SRCRT_TYPE_4, 0, 0, 0, 0, segment)


def encapsulating(local: str, sid: str, host: str, interface: int) -> bytes:
    """Return the program that sends each frame out through the interface with an index, to ``host``.

    ``local`` is this node's address, ``sid`` where the other node takes the frame out, ``host`` that node's
    address, on the link of that interface.
    """
    made = bpf.Assembler()
    made.move(_FRAME, 1)
    made.load(2, W, _FRAME, _SKB_MARK)
    made.go_if(2, "==", AGAIN, "send")
    made.load(_LENGTH, W, _FRAME, _SKB_LEN)
    _load_bytes(made, 0, _MAC, ETHERNET)
    _put(made, _OUTER, outer(local, sid) + bytes(2))
    made.move(2, _LENGTH)
    made.compute(2, "+", SRH)
    made.from_network(2)  # or to it: the two bytes change places
    made.store(H, 10, _OUTER + ETHERNET + 4, 2)
    _grow_packet(made)
    _write(made, 0, _OUTER, HEADERS)
    _write(made, HEADERS, _MAC, ETHERNET)
    _send_to(made, host, interface)
    _grow_frame(made)
    made.label("drop")
    made.set(0, TC_ACT_SHOT)
    made.leave()
    return made.code()


def _grow_packet(made: bpf.Assembler) -> None:
    """Make room behind the frame's header, which is the outer one from here on.

    The kernel does it for IP alone, and for no packet that is in a tunnel of the pod's: they go to ``other``.
    """
    made.move(1, _FRAME)
    made.set(2, HEADERS)
    made.set(3, BPF_ADJ_ROOM_MAC)
    made.set(4, ETHERNET)
    made.compute(4, "<<", BPF_ADJ_ROOM_ENCAP_L2_SHIFT)
    made.compute(4, "+", BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
    made.set(5, 0)
    made.call(BPF_FUNC_SKB_ADJUST_ROOM)
    made.go_if(0, "!=", 0, "other")


def _send_to(made: bpf.Assembler, host: str, interface: int) -> None:
    """Leave by the interface; the kernel finds out the MAC of the host, and waits for it where it has to."""
    made.label("send")
    _mark(made, 0)
    _put(made, _NEIGHBOUR, struct.pack("=I", socket.AF_INET6) + socket.inet_pton(socket.AF_INET6, host))
    made.set(1, interface)
    made.move(2, 10)
    made.compute(2, "+", _NEIGHBOUR)
    made.set(3, _NEIGHBOUR_SIZE)
    made.set(4, 0)
    made.call(BPF_FUNC_REDIRECT_NEIGH)
    made.leave()


def _grow_frame(made: bpf.Assembler) -> None:
    """Make room in front of the frame and let it come in once more, so that the kernel takes it for IPv6."""
    made.label("other")
    made.move(1, _FRAME)
    made.set(2, HEADERS)
    made.set(3, 0)
    made.call(BPF_FUNC_SKB_CHANGE_HEAD)
    made.go_if(0, "!=", 0, "drop")
    _write(made, 0, _OUTER, HEADERS)
    _mark(made, AGAIN)
    made.load(1, W, _FRAME, _SKB_IFINDEX)
    made.set(2, BPF_F_INGRESS)
    made.call(BPF_FUNC_REDIRECT)
    made.leave()


def _mark(made: bpf.Assembler, value: int) -> None:
    """Mark the frame; by a register, since kernels before 6.4 put no bare number there."""
    made.set(2, value)
    made.store(W, _FRAME, _SKB_MARK, 2)


def _put(made: bpf.Assembler, at: int, data: bytes) -> None:
    """Write bytes onto the stack, four at a time."""
    for offset in range(0, len(data), 4):
        (word,) = struct.unpack_from("=i", data, offset)
        made.store_number(W, 10, at + offset, word)


def _load_bytes(made: bpf.Assembler, offset: int, to: int, size: int) -> None:
    made.move(1, _FRAME)
    made.set(2, offset)
    made.move(3, 10)
    made.compute(3, "+", to)
    made.set(4, size)
    made.call(bpf.BPF_FUNC_SKB_LOAD_BYTES)
    made.go_if(0, "!=", 0, "drop")


def _write(made: bpf.Assembler, offset: int, source: int, size: int) -> None:
    made.move(1, _FRAME)
    made.set(2, offset)
    made.move(3, 10)
    made.compute(3, "+", source)
    made.set(4, size)
    made.set(5, 0)
    made.call(BPF_FUNC_SKB_STORE_BYTES)
    made.go_if(0, "!=", 0, "drop")
