"""Which tunnels this kernel can make: found out by making one of each in a namespace that is thrown away."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable

from nsmesh.datapath import netns, srv6_program, trial, vlan_messages, vlan_program
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Message, Netlink
from nsmesh.datapath.traffic_control import INGRESS
from nsmesh.datapath.wireguard import lacks_program
from nsmesh.model.messages import GENEVE, GRE, SRV6, VLAN, VXLAN, WIREGUARD

_PROBES: dict[str, tuple[tuple[str, Callable[[], Message]], ...]] = {
    VXLAN: (("vxlan devices", trial.new_vxlan),),
    GENEVE: (("geneve devices", trial.new_geneve),),
    GRE: (("gretap devices", trial.new_gre),),
    WIREGUARD: (("wireguard devices", lambda: trial.new_link("wireguard")),),
    VLAN: (("bridges", lambda: trial.new_link("bridge")),),
    SRV6: (("seg6local routes", lambda: trial.new_route(rt.AF_INET6, trial.SEG6_LOCAL)),),
}

_PROGRAMS: dict[str, Callable[[], bytes]] = {
    VLAN: lambda: vlan_program.tagging(1, 1),
    SRV6: lambda: srv6_program.encapsulating("fd5e::1", "fd5e::2", "fd5e::3", trial.LOOPBACK),
}


def kernel_lacks(mechanism: str) -> str:
    """Return why this kernel cannot make a mechanism's tunnels, or nothing."""
    return netns.tried_apart(lambda: _try(mechanism))


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
    """Ask in the namespace of the calling thread, a new one; raises OSError."""
    with Netlink() as netlink:
        for what, message in _PROBES[mechanism]:
            batch = Batch()
            batch.put(message())
            for failure in netlink.send(batch):
                if failure.number == errno.EOPNOTSUPP:
                    return f"this kernel has no {what}"
                if mechanism != SRV6:  # so bare a route is refused where the kernel knows it
                    return str(explain(failure.number, f"one of the {what} was refused"))
        program = _PROGRAMS.get(mechanism)
        return _no_program(netlink, program()) if program else ""


def _no_program(netlink: Netlink, code: bytes) -> str:
    """Return why a program cannot be put on an interface, or nothing."""
    try:
        vlan_messages.attach(netlink, trial.LOOPBACK, INGRESS, 1, code, "probe")
    except OSError as error:
        return f"this kernel takes no programs on interfaces (sch_ingress, cls_bpf): {error}"
    return ""
