"""Which tunnels this kernel can make: found out by making one of each in a namespace that is thrown away."""

from __future__ import annotations

import errno
import shutil
import struct
import threading
from collections.abc import Callable

from nsmesh.datapath import netns, vlan_messages, vlan_program
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.device import described
from nsmesh.datapath.geneve import data_of as geneve_data
from nsmesh.datapath.gre import data_of as gre_data
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Message, Netlink, attribute, request, u32
from nsmesh.datapath.vxlan import IFLA_VXLAN_ID
from nsmesh.datapath.wireguard import lacks_program
from nsmesh.model.messages import GENEVE, GRE, SRV6, VLAN, VXLAN, WIREGUARD
from nsmesh.model.tunnels import GenevePort, GrePort

_HERE, _THERE = "127.0.0.1", "127.0.0.2"
_LOOPBACK = 1
_RTA_ENCAP_TYPE, _RTA_ENCAP, _SEG6, _SEG6_LOCAL = 21, 22, 5, 7


def _link(kind: str, data: bytes = b"") -> Message:
    body = rt.IFINFO.pack(0, 0, 0, 0, 0) + attribute(rt.IFLA_IFNAME, b"probe\0") + described(kind, data)
    return request(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)


def _encapsulated(kind: int) -> Message:
    body = rt.RTMSG.pack(rt.AF_INET6, 128, 0, 0, 0, rt.RTPROT_BOOT, 0, rt.RTN_UNICAST, 0)
    body += attribute(rt.RTA_DST, bytes([0xFD, *bytes(14), 1])) + u32(rt.RTA_OIF, _LOOPBACK)
    body += attribute(_RTA_ENCAP_TYPE, struct.pack("=H", kind)) + attribute(_RTA_ENCAP | rt.NLA_F_NESTED, b"")
    return request(rt.RTM_NEWROUTE, rt.NLM_F_CREATE, body)


_PROBES: dict[str, tuple[tuple[str, Callable[[], Message]], ...]] = {
    VXLAN: (("vxlan devices", lambda: _link("vxlan", u32(IFLA_VXLAN_ID, 1))),),
    GENEVE: (("geneve devices", lambda: _link("geneve", geneve_data(GenevePort(1, _HERE, _THERE)))),),
    GRE: (("gretap devices", lambda: _link("gretap", gre_data(GrePort(1, _HERE, _THERE)))),),
    WIREGUARD: (("wireguard devices", lambda: _link("wireguard")),),
    VLAN: (("bridges", lambda: _link("bridge")),),
    SRV6: (
        ("seg6 routes", lambda: _encapsulated(_SEG6)),
        ("seg6local routes", lambda: _encapsulated(_SEG6_LOCAL)),
    ),
}


def kernel_lacks(mechanism: str) -> str:
    """Return why this kernel cannot make a mechanism's tunnels, or nothing."""
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(_try(mechanism)), name="probe")
    thread.start()
    thread.join()
    return reasons[0] if reasons else "the probe failed"


def lacks(mechanism: str) -> str:
    """Return why this node cannot make a mechanism's tunnels, or nothing: a program may stand in."""
    reason = kernel_lacks(mechanism)
    if mechanism != WIREGUARD or wireguard_by_kernel(reason):
        return reason
    program = lacks_program()
    return f"{reason or 'the program wg is not here'}, and {program}" if program else ""


def wireguard_by_kernel(lack: str | None = None) -> bool:
    """Return whether the kernel makes WireGuard devices and ``wg`` is here to configure them."""
    reason = kernel_lacks(WIREGUARD) if lack is None else lack
    return not reason and shutil.which("wg") is not None


def _try(mechanism: str) -> str:
    """Ask in a namespace of the calling thread, which must end then."""
    try:
        netns.leave()
        with Netlink() as netlink:
            for what, message in _PROBES[mechanism]:
                batch = Batch()
                batch.put(message())
                for failure in netlink.send(batch):
                    if failure.number == errno.EOPNOTSUPP:
                        return f"this kernel has no {what}"
                    if mechanism != SRV6:  # so bare a route is refused where the kernel knows it
                        return str(explain(failure.number, f"one of the {what} was refused"))
            return _no_programs(netlink) if mechanism == VLAN else ""
    except OSError as error:
        return str(error)


def _no_programs(netlink: Netlink) -> str:
    """Return why no program can be put on an interface, or nothing."""
    try:
        vlan_messages.attach(
            netlink, _LOOPBACK, vlan_messages.INGRESS, 1, vlan_program.tagging(1, 1), "probe"
        )
    except OSError as error:
        return f"this kernel takes no programs on interfaces (sch_ingress, cls_bpf): {error}"
    return ""
