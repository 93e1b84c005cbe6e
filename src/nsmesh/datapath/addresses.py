"""The addresses by which others reach this network namespace."""

from __future__ import annotations

import ipaddress

from nsmesh.core.errors import Unavailable
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Netlink
from nsmesh.datapath.rtnetlink import RT_SCOPE_UNIVERSE
from nsmesh.datapath.rtread import read_addresses


def reachable_address() -> str:
    """Return the first address of the calling thread's namespace that is not for itself alone.

    IPv4 before IPv6. Raises Unavailable where there is none.
    """
    try:
        with Netlink() as netlink:
            assigned = read_addresses(netlink)
    except OSError as error:
        raise explain(error.errno or 0, "cannot look for an address to be reached at") from error
    everywhere = (ipaddress.ip_address(one.address) for one in assigned if one.scope == RT_SCOPE_UNIVERSE)
    found = sorted((one for one in everywhere if not one.is_loopback), key=lambda one: one.version)
    if not found:
        raise Unavailable(
            "there is no address here at which others could reach this",
            remedy="give an interface an address, or say which to listen on: NSM_LISTEN_ON=tcp://IP:PORT",
        )
    return str(found[0])
