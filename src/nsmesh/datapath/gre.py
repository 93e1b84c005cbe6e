"""A wire between nodes as a GRE device, made in the node and, where it belongs there, moved into the pod.

Its packets leave by the namespace in which it was made. Older kernels take that of the device itself for
it, so it cannot be made directly in the pod; a move takes some 20 ms.
"""

from __future__ import annotations

import struct

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.device import make_and_move, new_link, send_new
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Netlink, attribute, attributes, u32
from nsmesh.datapath.packed import parse_ip
from nsmesh.datapath.places import Place
from nsmesh.datapath.veth import End
from nsmesh.datapath.wirestate import EndState
from nsmesh.model.tunnels import GrePort

IFLA_GRE_IFLAGS, IFLA_GRE_OFLAGS, IFLA_GRE_IKEY, IFLA_GRE_OKEY = 2, 3, 4, 5
IFLA_GRE_LOCAL, IFLA_GRE_REMOTE, IFLA_GRE_FLAGS = 6, 7, 13
GRE_KEY = struct.pack(">H", 0x2000)
IP6_TNL_F_IGN_ENCAP_LIMIT = 0x1

_KEY = struct.Struct(">I")


def kind_of(tunnel: GrePort) -> str:
    """Return the kind of device in the kernel's terms."""
    name = "gretap" if tunnel.ethernet else "gre"
    return name if len(parse_ip(tunnel.local)) == 4 else f"ip6{name}"


def data_of(tunnel: GrePort) -> bytes:
    """Return the attributes of a device."""
    local, remote, key = parse_ip(tunnel.local), parse_ip(tunnel.remote), _KEY.pack(tunnel.key)
    found = attribute(IFLA_GRE_LOCAL, local) + attribute(IFLA_GRE_REMOTE, remote)
    found += attribute(IFLA_GRE_IFLAGS, GRE_KEY) + attribute(IFLA_GRE_OFLAGS, GRE_KEY)
    found += attribute(IFLA_GRE_IKEY, key) + attribute(IFLA_GRE_OKEY, key)
    if len(local) == 16:  # without it eight more bytes would be around each packet
        found += u32(IFLA_GRE_FLAGS, IP6_TNL_F_IGN_ENCAP_LIMIT)
    return found


def new_device(node: Netlink, end: End, wanted: EndState, tunnel: GrePort, group: int) -> bool:
    """Make the device, down and unnumbered: see :func:`nsmesh.datapath.device.send_new`."""
    what = f"GRE key {tunnel.key} to {tunnel.remote}"
    kind = kind_of(tunnel), data_of(tunnel)
    if tunnel.ethernet and end.place.cookie == node.cookie:
        whole = (end.ifindex, end.name, wanted.mac, wanted.mtu)
        return send_new(node, end, new_link(whole, end.place.descriptor, kind, group), tunnel.remote, what)
    if not make_and_move(node, end, wanted.mtu, kind, group, tunnel.remote, what):
        return False
    if tunnel.ethernet and wanted.mac:
        batch = Batch()
        batch.put(rt.set_mac(end.ifindex, wanted.mac))
        for failure in end.place.netlink.send(batch):
            raise explain(failure.number, f"cannot give {end} its MAC", failure.text)
    return True


def leads_to(place: Place, index: int, tunnel: GrePort) -> bool:
    """Whether an interface is the GRE device of this very tunnel; raises OSError."""
    answers = place.netlink.ask(rt.get_link(index=index))
    info = attributes(attributes(answers[0][1], rt.IFINFO.size).get(rt.IFLA_LINKINFO, b""))
    if info.get(rt.IFLA_INFO_KIND, b"").rstrip(b"\0") != kind_of(tunnel).encode():
        return False
    found = attributes(info.get(rt.IFLA_INFO_DATA, b""))
    wanted = attributes(data_of(tunnel))
    wanted.pop(IFLA_GRE_FLAGS, None)
    return all(found.get(kind) == value for kind, value in wanted.items())
