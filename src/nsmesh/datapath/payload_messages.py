"""Messages for filters of payloads: ``clsact`` and ``cls_bpf``. Constants carry the kernel's names."""

from __future__ import annotations

import errno
import struct
import sys
from typing import NamedTuple

from nsmesh.datapath.netlink import Message, Netlink, attribute, attributes, request, u32

RTM_NEWQDISC, RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 36, 44, 45, 46
NLM_F_CREATE = 0x400
NLA_F_NESTED = 0x8000
TCA_KIND, TCA_OPTIONS = 1, 2
TC_H_CLSACT, CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_TAG, TCA_BPF_ID = 6, 7, 8, 10, 11
TCA_BPF_FLAG_ACT_DIRECT = 1

_TCMSG = struct.Struct("=BxxxiIII")
_PLACE = 1 << 16 | 0x0300  # priority 1, ETH_P_ALL in network order
_HANDLE = 1
PREFIX = "nsm_"
"""How the names of our programs begin."""
_NONE = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})

_CLSACT = attribute(TCA_KIND, b"clsact\0")


def new_place(index: int) -> Message:
    """Give an interface a place for filters; one that has it keeps it."""
    return request(RTM_NEWQDISC, NLM_F_CREATE, _TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0) + _CLSACT)


def options(descriptor: int, name: str) -> bytes:
    """Return the attributes of a request that attaches the program behind a descriptor."""
    wanted = u32(TCA_BPF_FD, descriptor) + attribute(TCA_BPF_NAME, name.encode() + b"\0")
    wanted += u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)
    return attribute(TCA_KIND, b"bpf\0") + attribute(TCA_OPTIONS | NLA_F_NESTED, wanted)


def new_filter(index: int, direction: int, body: bytes) -> Message:
    """Attach a program, in place of the one that is there."""
    return request(RTM_NEWTFILTER, NLM_F_CREATE, _TCMSG.pack(0, index, _HANDLE, direction, _PLACE) + body)


def del_filter(index: int, direction: int) -> Message:
    """Take our program away."""
    return request(RTM_DELTFILTER, 0, _TCMSG.pack(0, index, _HANDLE, direction, _PLACE))


class Standing(NamedTuple):
    """The program that is attached where ours belongs: its name, digest and id."""

    name: str
    tag: bytes
    id: int


def read_filter(netlink: Netlink, index: int, direction: int) -> Standing | None:
    """Return the program that is where ours belongs, or None; raises OSError."""
    message = request(RTM_GETTFILTER, 0, _TCMSG.pack(0, index, _HANDLE, direction, _PLACE))
    try:
        answers = netlink.ask(message)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    found = attributes(answers[0][1], _TCMSG.size) if answers else {}
    if found.get(TCA_KIND, b"").rstrip(b"\0") != b"bpf":
        return None
    options = attributes(found.get(TCA_OPTIONS, b""))
    name = options.get(TCA_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
    number = int.from_bytes(options.get(TCA_BPF_ID, b""), sys.byteorder)
    return Standing(name, options.get(TCA_BPF_TAG, b""), number)
