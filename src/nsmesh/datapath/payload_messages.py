"""Messages for filters of payloads: ``cls_bpf`` at the first priority."""

from __future__ import annotations

import sys
from typing import NamedTuple

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath import traffic_control as tc
from nsmesh.datapath.netlink import Message, Netlink, request

PREFIX = "nsm_"
"""How the names of our programs begin."""

_PLACE = tc.priority(1)
_HANDLE = 1


def new_filter(index: int, direction: int, body: bytes) -> Message:
    """Attach a program, in place of the one that is there; ``body``: see ``program_options``."""
    return request(tc.RTM_NEWTFILTER, rt.NLM_F_CREATE, _at(index, direction) + body)


def del_filter(index: int, direction: int) -> Message:
    """Take our program away."""
    return request(tc.RTM_DELTFILTER, 0, _at(index, direction))


def _at(index: int, direction: int) -> bytes:
    return tc.TCMSG.pack(0, index, _HANDLE, direction, _PLACE)


class Standing(NamedTuple):
    """The program that is attached where ours belongs: its name, digest and id."""

    name: str
    tag: bytes
    id: int


def read_filter(netlink: Netlink, index: int, direction: int) -> Standing | None:
    """Return the program that is where ours belongs, or None; raises OSError."""
    program = tc.program_in(tc.read_filter(netlink, _at(index, direction)))
    if not program:
        return None
    number = int.from_bytes(program.get(tc.TCA_BPF_ID, b""), sys.byteorder)
    return Standing(tc.name_in(program), program.get(tc.TCA_BPF_TAG, b""), number)
