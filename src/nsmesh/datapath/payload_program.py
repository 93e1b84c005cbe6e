"""What a wire of each payload lets pass, as programs for the kernel. Pure.

A program looks at a frame as it lies on the wire, passes it on to whatever filter comes next, or drops it and
counts it by what it was. ``docs/reference/payloads.md`` says the same in words.
"""

from __future__ import annotations

from collections.abc import Callable

from nsmesh.datapath import bpf
from nsmesh.datapath.bpf import DW, B, H, W
from nsmesh.model.messages import IP, L2TP, MPLS

CLASSES = ("ipv4", "ipv6", "arp", "mpls", "vlan", "other", "malformed")
"""What a refused frame was. ``malformed``: shorter than its headers, or not what its EtherType says."""
VALUE_SIZE = 64
"""Bytes that a wire's end has in the map: eight counters, one for each class and a spare one."""

TC_ACT_UNSPEC, TC_ACT_SHOT = -1, 2
ETH_HLEN = 14
ETH_P_IP, ETH_P_ARP, ETH_P_IPV6, ETH_P_MPLS_UC, ETH_P_MPLS_MC = 0x0800, 0x0806, 0x86DD, 0x8847, 0x8848
IPPROTO_UDP, IPPROTO_FRAGMENT, IPPROTO_ICMPV6, IPPROTO_L2TP = 17, 44, 58, 115
L2TP_PORT = 1701
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136

_SKB_LEN, _SKB_VLAN_PRESENT, _SKB_IFINDEX, _SKB_DATA, _SKB_DATA_END = 0, 20, 40, 76, 80
_STACK, _FRAME, _CLASS, _TYPE, _FIRST = 10, 6, 7, 8, 9
"""Registers: the stack, the frame, its class, its EtherType, the first byte behind that."""
_KEY, _BUFFER, _ZEROS = -4, -48, -112
"""Where on the stack the map's key is, 40 bytes read from the frame, and a new value."""


def program(payload: str, map_fd: int) -> bytes:
    """Return the program of a payload other than ETHERNET, which counts in a map of :data:`VALUE_SIZE`."""
    made = bpf.Assembler()
    made.move(_FRAME, 1)
    made.load(0, W, _FRAME, _SKB_VLAN_PRESENT)  # a tag that the kernel has taken off already
    made.go_if(0, "!=", 0, "vlan")
    _read_type(made)
    _BODIES[payload](made)
    _classify(made)
    _refuse(made, map_fd)
    made.label("pass")
    made.set(0, TC_ACT_UNSPEC)
    made.leave()
    return made.code()


def _read_type(made: bpf.Assembler) -> None:
    """Read the EtherType and the byte behind it, directly where they lie at hand."""
    made.load(2, W, _FRAME, _SKB_DATA)
    made.load(3, W, _FRAME, _SKB_DATA_END)
    made.move(4, 2)
    made.compute(4, "+", ETH_HLEN + 1)
    made.go_if_above(4, 3, "apart")
    made.load(_TYPE, H, 2, ETH_HLEN - 2)
    made.load(_FIRST, B, 2, ETH_HLEN)
    made.go("read")
    made.label("apart")
    _read(made, ETH_HLEN - 2, 3)
    made.load(_TYPE, H, _STACK, _BUFFER)
    made.load(_FIRST, B, _STACK, _BUFFER + 2)
    made.label("read")
    made.from_network(_TYPE)


def _read(made: bpf.Assembler, offset: int, size: int) -> None:
    made.set(2, offset)
    _read_from(made, size)


def _read_from(made: bpf.Assembler, size: int) -> None:
    """Read bytes of the frame, from the offset in register 2 on, into the buffer on the stack."""
    made.move(1, _FRAME)
    made.move(3, _STACK)
    made.compute(3, "+", _BUFFER)
    made.set(4, size)
    made.call(bpf.BPF_FUNC_SKB_LOAD_BYTES)
    made.go_if(0, "!=", 0, "malformed")


def _ip(made: bpf.Assembler) -> None:
    """IPv4 and IPv6, and ARP, which finds the neighbours of the one as IPv6 finds its own."""
    made.go_if(_TYPE, "==", ETH_P_ARP, "pass")
    made.compute(_FIRST, ">>", 4)
    made.load(0, W, _FRAME, _SKB_LEN)
    made.go_if(_TYPE, "!=", ETH_P_IP, "not v4")
    made.go_if(0, "<", ETH_HLEN + 20, "malformed")
    made.go_if(_FIRST, "==", 4, "pass")
    made.go("malformed")
    made.label("not v4")
    made.go_if(_TYPE, "!=", ETH_P_IPV6, "refused")
    made.go_if(0, "<", ETH_HLEN + 40, "malformed")
    made.go_if(_FIRST, "==", 6, "pass")
    made.go("malformed")


def _mpls(made: bpf.Assembler) -> None:
    """Ask for a whole label at least."""
    made.go_if(_TYPE, "==", ETH_P_MPLS_UC, "labelled")
    made.go_if(_TYPE, "!=", ETH_P_MPLS_MC, "refused")
    made.label("labelled")
    made.load(0, W, _FRAME, _SKB_LEN)
    made.go_if(0, "<", ETH_HLEN + 4, "malformed")
    made.go("pass")


def _l2tp(made: bpf.Assembler) -> None:
    """L2TPv3 over IP and over UDP, and what finds the neighbour to send it to.

    Of UDP in fragments only the first has ports. The others pass: without the first nobody can use them.
    """
    made.go_if(_TYPE, "==", ETH_P_ARP, "pass")
    made.go_if(_TYPE, "==", ETH_P_IPV6, "v6")
    made.go_if(_TYPE, "!=", ETH_P_IP, "refused")
    _read(made, ETH_HLEN, 20)
    made.load(2, B, _STACK, _BUFFER)
    made.move(0, 2)
    made.compute(0, ">>", 4)
    made.go_if(0, "!=", 4, "malformed")
    made.compute(2, "&", 0xF)
    made.compute(2, "<<", 2)
    made.go_if(2, "<", 20, "malformed")
    made.compute(2, "+", ETH_HLEN)
    made.load(0, B, _STACK, _BUFFER + 9)
    made.go_if(0, "==", IPPROTO_L2TP, "pass")
    made.go_if(0, "!=", IPPROTO_UDP, "refused")
    made.load(0, H, _STACK, _BUFFER + 6)
    made.from_network(0)
    made.go_if(0, "&", 0x1FFF, "pass")
    made.go("ports")
    _l2tp_v6(made)
    made.label("ports")
    _read_from(made, 4)
    for offset in (0, 2):
        made.load(0, H, _STACK, _BUFFER + offset)
        made.from_network(0)
        made.go_if(0, "==", L2TP_PORT, "pass")
    made.go("refused")


def _l2tp_v6(made: bpf.Assembler) -> None:
    """No extension header but that of a fragment; leaves the offset of UDP's ports in register 2."""
    made.label("v6")
    _read(made, ETH_HLEN, 40)
    made.load(0, B, _STACK, _BUFFER)
    made.compute(0, ">>", 4)
    made.go_if(0, "!=", 6, "malformed")
    made.set(2, ETH_HLEN + 40)
    made.load(0, B, _STACK, _BUFFER + 6)
    made.go_if(0, "==", IPPROTO_L2TP, "pass")
    made.go_if(0, "==", IPPROTO_UDP, "ports")
    made.go_if(0, "==", IPPROTO_FRAGMENT, "fragment")
    made.go_if(0, "!=", IPPROTO_ICMPV6, "refused")
    _read_from(made, 1)
    made.load(0, B, _STACK, _BUFFER)
    made.go_if(0, "==", NEIGHBOUR_SOLICITATION, "pass")
    made.go_if(0, "==", NEIGHBOUR_ADVERTISEMENT, "pass")
    made.go("refused")
    made.label("fragment")
    _read_from(made, 8)
    made.load(0, B, _STACK, _BUFFER)
    made.go_if(0, "==", IPPROTO_L2TP, "pass")
    made.go_if(0, "!=", IPPROTO_UDP, "refused")
    made.load(0, H, _STACK, _BUFFER + 2)
    made.from_network(0)
    made.go_if(0, "&", 0xFFF8, "pass")
    made.set(2, ETH_HLEN + 48)


_BODIES: dict[str, Callable[[bpf.Assembler], None]] = {IP: _ip, MPLS: _mpls, L2TP: _l2tp}


def _classify(made: bpf.Assembler) -> None:
    """Say what a refused frame was, by its EtherType."""
    made.label("refused")
    for name, types in {
        "ipv4": (ETH_P_IP,),
        "ipv6": (ETH_P_IPV6,),
        "arp": (ETH_P_ARP,),
        "mpls": (ETH_P_MPLS_UC, ETH_P_MPLS_MC),
        "vlan": (0x8100, 0x88A8),
    }.items():
        made.set(_CLASS, CLASSES.index(name))
        for number in types:
            made.go_if(_TYPE, "==", number, "count")
    made.set(_CLASS, CLASSES.index("other"))
    made.go("count")
    made.label("malformed")
    made.set(_CLASS, CLASSES.index("malformed"))
    made.go("count")
    made.label("vlan")
    made.set(_CLASS, CLASSES.index("vlan"))
    made.label("count")


def _refuse(made: bpf.Assembler, map_fd: int) -> None:
    """Count and drop. An interface's counters are made with its first refused frame."""
    made.load(0, W, _FRAME, _SKB_IFINDEX)
    made.store(W, _STACK, _KEY, 0)
    _find(made, map_fd)
    made.go_if(0, "!=", 0, "found")
    for offset in range(0, VALUE_SIZE, 8):
        made.store_number(DW, _STACK, _ZEROS + offset, 0)
    made.map(1, map_fd)
    _point(made, 2, _KEY)
    _point(made, 3, _ZEROS)
    made.set(4, 1)  # BPF_NOEXIST: another processor may have been faster
    made.call(bpf.BPF_FUNC_MAP_UPDATE_ELEM)
    _find(made, map_fd)
    made.go_if(0, "==", 0, "drop")
    made.label("found")
    made.compute(_CLASS, "<<", 3)
    made.add(0, _CLASS)
    made.set(1, 1)
    made.count(0, 1)
    made.label("drop")
    made.set(0, TC_ACT_SHOT)
    made.leave()


def _find(made: bpf.Assembler, map_fd: int) -> None:
    made.map(1, map_fd)
    _point(made, 2, _KEY)
    made.call(bpf.BPF_FUNC_MAP_LOOKUP_ELEM)


def _point(made: bpf.Assembler, register: int, offset: int) -> None:
    made.move(register, _STACK)
    made.compute(register, "+", offset)
