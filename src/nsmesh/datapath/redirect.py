"""Leading all frames of one interface to another: messages for ``u32`` and ``mirred``.

They come behind the filter of the wire's payload (``payload_filter.py``), which has the first priority.
"""

from __future__ import annotations

import os
import struct

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath import traffic_control as tc
from nsmesh.datapath.netlink import Batch, Message, Netlink, attribute, attributes, request

TCA_U32_SEL, TCA_U32_ACT, TC_U32_TERMINAL = 5, 7, 1
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
TC_ACT_STOLEN, TCA_EGRESS_REDIR = 4, 1

_PLACE = tc.priority(2)
_MIRRED = struct.Struct("=IIiiiiI")
_SELECTOR = struct.Struct("=BBBxHHhhI")
_KEY = bytes(16)
"""One key of u32 that matches everything."""


def join(netlink: Netlink, one: int, other: int) -> str:
    """Lead all frames of two interfaces to each other; return why not, or nothing.

    What is led so already is not touched: no frame gets lost.
    """
    for source, to in ((one, other), (other, one)):
        if target(netlink, source) == to:
            continue
        before, batch = Batch(), Batch()
        before.put(stop(source))
        netlink.send(before)  # there may be none
        batch.put(tc.new_place(source))
        batch.put(lead(source, to))
        for failure in netlink.send(batch):
            return failure.text or os.strerror(failure.number)
    return ""


def target(netlink: Netlink, index: int) -> int:
    """Return the index of the interface to which an interface's frames are led, or 0."""
    question = request(tc.RTM_GETTFILTER, 0, tc.TCMSG.pack(0, index, 0, tc.INGRESS, 0))
    for _, answer in netlink.dump(question):
        found = attributes(answer, tc.TCMSG.size)
        for key in (tc.TCA_OPTIONS, TCA_U32_ACT, 1, TCA_ACT_OPTIONS):
            found = attributes(found.get(key, b""))
        parms = found.get(TCA_MIRRED_PARMS, b"")
        if tc.TCMSG.unpack_from(answer)[4] >> 16 == _PLACE >> 16 and len(parms) >= _MIRRED.size:
            return int(_MIRRED.unpack_from(parms)[6])
    return 0


def stop(index: int) -> Message:
    """Take away what :func:`lead` has made on an interface."""
    return request(tc.RTM_DELTFILTER, 0, tc.TCMSG.pack(0, index, 0, tc.INGRESS, _PLACE))


def lead(index: int, to: int) -> Message:
    """Send all frames that come in through ``index`` out through ``to``, in the same namespace."""
    parms = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to)
    action = attribute(TCA_ACT_KIND, b"mirred\0")
    action += attribute(TCA_ACT_OPTIONS | rt.NLA_F_NESTED, attribute(TCA_MIRRED_PARMS, parms))
    selector = _SELECTOR.pack(TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _KEY
    options = attribute(TCA_U32_SEL, selector)
    options += attribute(TCA_U32_ACT | rt.NLA_F_NESTED, attribute(1 | rt.NLA_F_NESTED, action))
    body = tc.TCMSG.pack(0, index, 0, tc.INGRESS, _PLACE) + attribute(tc.TCA_KIND, b"u32\0")
    body += attribute(tc.TCA_OPTIONS | rt.NLA_F_NESTED, options)
    return request(tc.RTM_NEWTFILTER, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)
