"""A wire between nodes: one VXLAN device, made directly in the pod while its UDP socket stays in the node.

One netlink message on a socket of the node's namespace does both: no device is moved, and no hop is added.
Who may administer the pod's network can point the device elsewhere; see ``docs/reference/mechanisms.md``.
"""

from __future__ import annotations

import errno
import struct

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.base import TunnelTaken, VxlanPort
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Message, Netlink, attribute, attributes, request, u32
from nsmesh.datapath.packed import parse_ip
from nsmesh.datapath.places import Place
from nsmesh.datapath.veth import End, NameTaken, find_link
from nsmesh.datapath.wirestate import EndState

AF_BRIDGE = 7
NUD_NOARP, NTF_SELF, NDA_PORT = 0x40, 0x02, 6
NLM_F_APPEND = 0x800
IFLA_VXLAN_ID, IFLA_VXLAN_GROUP, IFLA_VXLAN_LOCAL = 1, 2, 4
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT = 7, 15
IFLA_VXLAN_GROUP6, IFLA_VXLAN_LOCAL6 = 16, 17

_KIND = attribute(rt.IFLA_INFO_KIND, b"vxlan\0")
_PORT = struct.Struct(">H")
_ANY_MAC = bytes(6)


def new_vxlan(end: tuple[int, str, bytes, int], namespace: int, tunnel: VxlanPort, group: int) -> Message:
    """Make a VXLAN device: ``end`` is (index, name, MAC, MTU); ``namespace`` is where the device is made.

    It learns nothing: all frames go to the one other end.
    """
    local, remote = parse_ip(tunnel.local), parse_ip(tunnel.remote)
    kinds = (
        (IFLA_VXLAN_LOCAL, IFLA_VXLAN_GROUP) if len(local) == 4 else (IFLA_VXLAN_LOCAL6, IFLA_VXLAN_GROUP6)
    )
    data = (
        u32(IFLA_VXLAN_ID, tunnel.vni)
        + attribute(kinds[0], local)
        + attribute(IFLA_VXLAN_PORT, _PORT.pack(tunnel.local_port))
        + attribute(IFLA_VXLAN_LEARNING, b"\0")
    )
    if tunnel.local_port == tunnel.remote_port:  # the kernel sends to the port that it listens on
        data += attribute(kinds[1], remote)
    body = rt.new_end(*end, group) + u32(rt.IFLA_NET_NS_FD, namespace)
    info = _KIND + attribute(rt.IFLA_INFO_DATA | rt.NLA_F_NESTED, data)
    body += attribute(rt.IFLA_LINKINFO | rt.NLA_F_NESTED, info)
    return request(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)


def steer(index: int, tunnel: VxlanPort) -> Message:
    """Send all frames of a device to the tunnel's other end, at a port of its own."""
    body = (
        rt.NDMSG.pack(AF_BRIDGE, index, NUD_NOARP | rt.NUD_PERMANENT, NTF_SELF, 0)
        + attribute(rt.NDA_LLADDR, _ANY_MAC)
        + attribute(rt.NDA_DST, parse_ip(tunnel.remote))
        + attribute(NDA_PORT, _PORT.pack(tunnel.remote_port))
    )
    return request(rt.RTM_NEWNEIGH, rt.NLM_F_CREATE | NLM_F_APPEND, body)


def new_device(node: Netlink, end: End, wanted: EndState, tunnel: VxlanPort, group: int) -> bool:
    """Make the device, down and unnumbered; return False where its index is in use, with nothing made.

    ``node`` is a socket of the namespace that has the underlay. Raises NameTaken where the name is in use,
    TunnelTaken where another device has VNI and port, else MeshError.
    """
    batch = Batch()
    place = end.place
    batch.put(new_vxlan((end.ifindex, end.name, wanted.mac, wanted.mtu), place.descriptor, tunnel, group))
    for failure in node.send(batch):
        if failure.number == errno.EEXIST:
            if find_link(place, name=end.name):
                raise NameTaken
            if not find_link(place, index=end.ifindex):
                raise TunnelTaken(
                    f"VNI {tunnel.vni} at UDP port {tunnel.local_port} of this node is another wire's",
                    remedy="ask again: another one is chosen",
                )
        if failure.number in {errno.EBUSY, errno.EEXIST}:
            return False
        raise explain(failure.number, f"cannot make {end} towards {tunnel.remote}", failure.text)
    if tunnel.local_port != tunnel.remote_port:
        batch = Batch()
        batch.put(steer(end.ifindex, tunnel))
        for failure in place.netlink.send(batch):
            raise explain(failure.number, f"cannot point {end} to {tunnel.remote}", failure.text)
    return True


def leads_to(place: Place, index: int, tunnel: VxlanPort) -> bool:
    """Whether an interface is the VXLAN device of this very tunnel; raises OSError."""
    netlink = place.netlink
    answers = netlink.ask(rt.get_link(index=index))
    info = attributes(attributes(answers[0][1], rt.IFINFO.size).get(rt.IFLA_LINKINFO, b""))
    if info.get(rt.IFLA_INFO_KIND, b"").rstrip(b"\0") != b"vxlan":
        return False
    data = attributes(info.get(rt.IFLA_INFO_DATA, b""))
    local = data.get(IFLA_VXLAN_LOCAL) or data.get(IFLA_VXLAN_LOCAL6)
    port = _PORT.unpack(data.get(IFLA_VXLAN_PORT, b"\0\0"))[0]
    if (data.get(IFLA_VXLAN_ID), port) != (struct.pack("=I", tunnel.vni), tunnel.local_port):
        return False
    remotes = [(address, own or port) for address, own in read_remotes(netlink, index)]
    return local == parse_ip(tunnel.local) and remotes == [(parse_ip(tunnel.remote), tunnel.remote_port)]


def read_remotes(netlink: Netlink, index: int) -> list[tuple[bytes, int]]:
    """Return where a device sends what it knows no better place for: packed addresses with their ports.

    The port is 0 where it is the device's own. Raises OSError.
    """
    netlink.strict()
    message = request(rt.RTM_GETNEIGH, 0, rt.NDMSG.pack(AF_BRIDGE, index, 0, 0, 0))
    found = []
    for _, answer in netlink.dump(message):
        family, owner, _, _, _ = rt.NDMSG.unpack_from(answer)
        values = attributes(answer, rt.NDMSG.size)
        if family != AF_BRIDGE or owner != index or values.get(rt.NDA_LLADDR) != _ANY_MAC:
            continue
        port = values.get(NDA_PORT)
        found.append((values[rt.NDA_DST], _PORT.unpack(port)[0] if port else 0))
    return found
