"""Putting VLAN tags on frames and taking them off, as programs for the kernel. Pure.

For kernels without VLAN devices (``8021q``). A frame goes from the bridge of a VLAN to the interface with its
tag, and the other way without it.
"""

from __future__ import annotations

import socket

from nsmesh.datapath import bpf
from nsmesh.datapath.bpf import W

BPF_FUNC_SKB_VLAN_PUSH, BPF_FUNC_SKB_VLAN_POP, BPF_FUNC_REDIRECT = 18, 19, 23
BPF_F_INGRESS = 1
TC_ACT_UNSPEC, TC_ACT_SHOT = -1, 2
ETH_P_8021Q, ETH_P_8021AD = 0x8100, 0x88A8

_SKB_PROTOCOL, _SKB_VLAN_PRESENT, _SKB_VLAN_TCI, _SKB_VLAN_PROTO = 16, 20, 24, 28
_FRAME, _VALUE = 6, 7
_VID = 0xFFF


def tagging(vlan: int, interface: int) -> bytes:
    """Return the program that sends each frame out through the interface with an index, tagged.

    With ``vlan`` 0 a frame goes as it is, and one that has a tag of its own, which would lead it into another
    VLAN, is dropped.
    """
    made = bpf.Assembler()
    made.move(_FRAME, 1)
    if vlan:
        made.set(2, socket.htons(ETH_P_8021Q))
        made.set(3, vlan)
        made.call(BPF_FUNC_SKB_VLAN_PUSH)
        made.go_if(0, "!=", 0, "drop")
    else:
        made.load(_VALUE, W, _FRAME, _SKB_VLAN_PRESENT)
        made.go_if(_VALUE, "!=", 0, "drop")
        made.load(_VALUE, W, _FRAME, _SKB_PROTOCOL)
        for protocol in (ETH_P_8021Q, ETH_P_8021AD):
            made.go_if(_VALUE, "==", socket.htons(protocol), "drop")
    _redirect(made, interface, 0)
    _end(made, "drop", TC_ACT_SHOT)
    return made.code()


def untagging(vlan: int, port: int) -> bytes:
    """Return the program that gives frames of a VLAN to the bridge's port with an index, without their tag.

    All other frames go on as if it were not there. With ``vlan`` 0 those without a tag are meant, and those
    that have one for the sake of their priority alone.
    """
    made = bpf.Assembler()
    made.move(_FRAME, 1)
    made.load(_VALUE, W, _FRAME, _SKB_VLAN_PRESENT)  # the kernel has taken a tag off the frame by now
    made.go_if(_VALUE, "==", 0, "other" if vlan else "untagged")
    made.load(_VALUE, W, _FRAME, _SKB_VLAN_PROTO)
    made.go_if(_VALUE, "!=", socket.htons(ETH_P_8021Q), "other")
    made.load(_VALUE, W, _FRAME, _SKB_VLAN_TCI)
    made.compute(_VALUE, "&", _VID)
    made.go_if(_VALUE, "!=", vlan, "other")
    made.move(1, _FRAME)
    made.call(BPF_FUNC_SKB_VLAN_POP)
    made.go_if(0, "!=", 0, "drop")
    made.label("untagged")
    _redirect(made, port, BPF_F_INGRESS)
    _end(made, "drop", TC_ACT_SHOT)
    _end(made, "other", TC_ACT_UNSPEC)
    return made.code()


def dropping() -> bytes:
    """Return the program that drops every frame: what a bridge would hand to the node itself."""
    made = bpf.Assembler()
    _end(made, "drop", TC_ACT_SHOT)
    return made.code()


def _redirect(made: bpf.Assembler, index: int, flags: int) -> None:
    made.set(1, index)
    made.set(2, flags)
    made.call(BPF_FUNC_REDIRECT)
    made.leave()


def _end(made: bpf.Assembler, label: str, action: int) -> None:
    made.label(label)
    made.set(0, action)
    made.leave()
