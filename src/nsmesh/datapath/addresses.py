"""The addresses by which others reach this network namespace."""

from __future__ import annotations

import ipaddress

from nsmesh.core.errors import Unavailable
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Netlink, attributes, request

_EVERYWHERE = 0
"""Scope of an address that is no loopback's and no link's."""


def reachable_address() -> str:
    """Return the first address of the calling thread's namespace that is not for itself alone.

    IPv4 before IPv6. Raises Unavailable where there is none.
    """
    found = []
    try:
        with Netlink() as netlink:
            for _, body in netlink.dump(request(rt.RTM_GETADDR, 0, rt.IFADDR.pack(0, 0, 0, 0, 0))):
                _, _, _, scope, _ = rt.IFADDR.unpack_from(body)
                values = attributes(body, rt.IFADDR.size)
                raw = values.get(rt.IFA_LOCAL) or values.get(rt.IFA_ADDRESS)
                if raw and scope == _EVERYWHERE:
                    found.append(ipaddress.ip_address(raw))
    except OSError as error:
        raise explain(error.errno or 0, "cannot look for an address to be reached at") from error
    found = sorted((one for one in found if not one.is_loopback), key=lambda one: one.version)
    if not found:
        raise Unavailable(
            "there is no address here at which others could reach this",
            remedy="give an interface an address, or say which to listen on: NSM_LISTEN_ON=tcp://IP:PORT",
        )
    return str(found[0])
