"""Leading all frames of one interface to another: messages for ``clsact``, ``u32`` and ``mirred``.

They come behind the filter of the wire's payload (``payload_filter.py``), which has the first priority.
"""

from __future__ import annotations

import struct

from nsmesh.datapath.netlink import Message, attribute, request

RTM_NEWQDISC, RTM_NEWTFILTER, RTM_DELTFILTER = 36, 44, 45
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLA_F_NESTED = 0x8000
TCA_KIND, TCA_OPTIONS = 1, 2
TC_H_CLSACT, CLSACT_HANDLE, INGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2
TCA_U32_SEL, TCA_U32_ACT, TC_U32_TERMINAL = 5, 7, 1
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
TC_ACT_STOLEN, TCA_EGRESS_REDIR = 4, 1

_TCMSG = struct.Struct("=BxxxiIII")
_ANY_PROTOCOL = 2 << 16 | 0x0300  # priority 2, ETH_P_ALL in network order
_MIRRED = struct.Struct("=IIiiiiI")
_SELECTOR = struct.Struct("=BBBxHHhhI")
_KEY = bytes(16)
"""One key of u32 that matches everything."""


def stop(index: int) -> Message:
    """Take away what :func:`lead` has made on an interface."""
    return request(RTM_DELTFILTER, 0, _TCMSG.pack(0, index, 0, INGRESS, _ANY_PROTOCOL))


def start(index: int) -> Message:
    """Give an interface a place for filters; one that has it keeps it."""
    body = _TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0) + attribute(TCA_KIND, b"clsact\0")
    return request(RTM_NEWQDISC, NLM_F_CREATE, body)


def lead(index: int, to: int) -> Message:
    """Send all frames that come in through ``index`` out through ``to``, in the same namespace."""
    parms = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to)
    action = attribute(TCA_ACT_KIND, b"mirred\0")
    action += attribute(TCA_ACT_OPTIONS | NLA_F_NESTED, attribute(TCA_MIRRED_PARMS, parms))
    selector = _SELECTOR.pack(TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _KEY
    options = attribute(TCA_U32_SEL, selector)
    options += attribute(TCA_U32_ACT | NLA_F_NESTED, attribute(1 | NLA_F_NESTED, action))
    body = _TCMSG.pack(0, index, 0, INGRESS, _ANY_PROTOCOL) + attribute(TCA_KIND, b"u32\0")
    body += attribute(TCA_OPTIONS | NLA_F_NESTED, options)
    return request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body)
