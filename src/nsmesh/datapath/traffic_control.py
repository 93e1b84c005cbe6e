"""Requests of traffic control, for all that goes onto interfaces. Constants carry the kernel's names."""

from __future__ import annotations

import errno
import struct

from nsmesh.datapath.netlink import Message, Netlink, attribute, attributes, request, u32
from nsmesh.datapath.rtnetlink import NLA_F_NESTED, NLM_F_CREATE

RTM_NEWQDISC, RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 36, 44, 45, 46
TCA_KIND, TCA_OPTIONS = 1, 2
TC_H_ROOT, TC_H_CLSACT, CLSACT_HANDLE = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFF0000
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_TAG, TCA_BPF_ID = 6, 7, 8, 10, 11
TCA_BPF_FLAG_ACT_DIRECT = 1

TCMSG = struct.Struct("=BxxxiIII")
"""``struct tcmsg``: family, index, handle, parent, info."""
NOT_THERE = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})
"""What the kernel says of a filter that is not there, by what else is missing."""

_CLSACT = attribute(TCA_KIND, b"clsact\0")


def priority(number: int) -> int:
    """Return ``tcm_info`` of filters with a priority, for frames of any protocol."""
    return number << 16 | 0x0300  # ETH_P_ALL in network order


def new_place(index: int) -> Message:
    """Give an interface a place for filters; one that has it keeps it."""
    return request(RTM_NEWQDISC, NLM_F_CREATE, TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0) + _CLSACT)


def program_options(descriptor: int, name: str) -> bytes:
    """Return the attributes of a request that attaches the program behind a descriptor."""
    wanted = u32(TCA_BPF_FD, descriptor) + attribute(TCA_BPF_NAME, name.encode() + b"\0")
    wanted += u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)
    return attribute(TCA_KIND, b"bpf\0") + attribute(TCA_OPTIONS | NLA_F_NESTED, wanted)


def read_filter(netlink: Netlink, where: bytes) -> bytes:
    """Return what the kernel says of the filter at a ``tcmsg``, empty where none is; raises OSError."""
    try:
        answers = netlink.ask(request(RTM_GETTFILTER, 0, where))
    except OSError as error:
        if error.errno in NOT_THERE:
            return b""
        raise
    return answers[0][1] if answers else b""


def program_in(answer: bytes) -> dict[int, bytes]:
    """Return the attributes of the program in an answer; none where it holds none."""
    found = attributes(answer, TCMSG.size) if answer else {}
    if found.get(TCA_KIND, b"").rstrip(b"\0") != b"bpf":
        return {}
    return attributes(found.get(TCA_OPTIONS, b""))


def name_in(program: dict[int, bytes]) -> str:
    """Return the name under which a program was attached, or nothing."""
    return program.get(TCA_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
