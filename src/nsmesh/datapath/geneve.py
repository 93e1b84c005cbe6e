"""A wire between nodes: a Geneve device made directly in the pod; its UDP socket stays in the node."""

from __future__ import annotations

import struct

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.device import new_link, send_new
from nsmesh.datapath.netlink import Netlink, attribute, attributes, u32
from nsmesh.datapath.packed import parse_ip
from nsmesh.datapath.places import Place
from nsmesh.datapath.veth import End
from nsmesh.datapath.wirestate import EndState
from nsmesh.model.tunnels import GenevePort

KIND = "geneve"
IFLA_GENEVE_ID, IFLA_GENEVE_REMOTE, IFLA_GENEVE_PORT, IFLA_GENEVE_REMOTE6 = 1, 2, 5, 7

_PORT = struct.Struct(">H")


def data_of(tunnel: GenevePort) -> bytes:
    """Return the attributes of a device."""
    remote = parse_ip(tunnel.remote)
    kind = IFLA_GENEVE_REMOTE if len(remote) == 4 else IFLA_GENEVE_REMOTE6
    return (
        u32(IFLA_GENEVE_ID, tunnel.vni)
        + attribute(kind, remote)
        + attribute(IFLA_GENEVE_PORT, _PORT.pack(tunnel.port))
    )


def new_device(node: Netlink, end: End, wanted: EndState, tunnel: GenevePort, group: int) -> bool:
    """Make the device, down and unnumbered: see :func:`nsmesh.datapath.device.send_new`."""
    whole = (end.ifindex, end.name, wanted.mac, wanted.mtu)
    message = new_link(whole, end.place.descriptor, (KIND, data_of(tunnel)), group)
    return send_new(
        node, end, message, tunnel.remote, f"VNI {tunnel.vni} at UDP port {tunnel.port} to {tunnel.remote}"
    )


def leads_to(place: Place, index: int, tunnel: GenevePort) -> bool:
    """Whether an interface is the Geneve device of this very tunnel; raises OSError."""
    answers = place.netlink.ask(rt.get_link(index=index))
    info = attributes(attributes(answers[0][1], rt.IFINFO.size).get(rt.IFLA_LINKINFO, b""))
    if info.get(rt.IFLA_INFO_KIND, b"").rstrip(b"\0") != KIND.encode():
        return False
    found = attributes(info.get(rt.IFLA_INFO_DATA, b""))
    return all(found.get(kind) == value for kind, value in attributes(data_of(tunnel)).items())
