"""What route netlink is told to make the bridge of a VLAN, its way out, and the programs on them."""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

from nsmesh.datapath import bpf
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath import traffic_control as tc
from nsmesh.datapath.device import described
from nsmesh.datapath.netlink import Batch, Message, Netlink, attribute, attributes, request, u32
from nsmesh.datapath.rtread import read_addresses

IFLA_LINK, IFLA_MASTER = 5, 10
IFLA_VLAN_ID = 1
IFLA_BR_MCAST_SNOOPING = 23
IFF_PROMISC = 0x100
RT_SCOPE_LINK = 253

PRIORITY = 0x6E
"""Of our programs on an interface: behind those at 1, where other programs begin."""

_PLACE = tc.priority(PRIORITY)
_NO_LINK = rt.IFINFO.pack(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Device:
    """One interface, as far as bridges go: ``master`` is the index of the bridge that it is a port of."""

    index: int
    name: str
    kind: str
    master: int
    group: int
    flags: int

    @property
    def up(self) -> bool:
        """Whether it is set up."""
        return bool(self.flags & rt.IFF_UP)

    @property
    def promiscuous(self) -> bool:
        """Whether it was set to take frames for anybody."""
        return bool(self.flags & IFF_PROMISC)


def device(body: bytes) -> Device:
    """Return what an RTM_NEWLINK says."""
    _, _, index, flags, _ = rt.IFINFO.unpack_from(body)
    found = attributes(body, rt.IFINFO.size)
    info = attributes(found.get(rt.IFLA_LINKINFO, b""))

    def number(kind: int) -> int:
        return int.from_bytes(found.get(kind, b""), sys.byteorder)

    name = found.get(rt.IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    kind = info.get(rt.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    return Device(index, name, kind, number(IFLA_MASTER), number(rt.IFLA_GROUP), flags)


def find(netlink: Netlink, *, name: str = "", index: int = 0) -> Device | None:
    """Return an interface by its name or index, or None; raises OSError."""
    try:
        answers = netlink.ask(rt.get_link(name=name, index=index))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return device(answers[0][1]) if answers else None


def bridges(netlink: Netlink) -> list[Device]:
    """Return all bridges of a namespace; raises OSError."""
    return _listed(netlink, described("bridge", b""), lambda found: found.kind == "bridge")


def ports(netlink: Netlink, bridge: int) -> list[Device]:
    """Return the ports of a bridge; raises OSError."""
    return _listed(netlink, u32(IFLA_MASTER, bridge), lambda found: found.master == bridge)


def _listed(netlink: Netlink, wanted: bytes, belongs: Callable[[Device], bool]) -> list[Device]:
    answers = netlink.dump(request(rt.RTM_GETLINK, 0, _NO_LINK + wanted))
    return [found for found in (device(body) for _, body in answers) if belongs(found)]


def new_bridge(index: int, name: str, mac: bytes, mtu: int, group: int) -> Message:
    """Make a bridge that floods what it has not learnt, multicast too."""
    body = rt.new_end(index, name, mac, mtu, group)
    body += described("bridge", attribute(IFLA_BR_MCAST_SNOOPING, b"\0"))
    return request(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)


def new_vlan(index: int, name: str, mac: bytes, parent: int, vlan: int, group: int) -> Message:
    """Make the kernel's own device for a VLAN of an interface."""
    body = rt.new_end(index, name, mac, 0, group) + u32(IFLA_LINK, parent)
    body += described("vlan", attribute(IFLA_VLAN_ID, struct.pack("=H", vlan)))
    return request(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)


def set_master(index: int, bridge: int) -> Message:
    """Make an interface a port of a bridge."""
    return request(rt.RTM_SETLINK, 0, rt.IFINFO.pack(0, 0, index, 0, 0) + u32(IFLA_MASTER, bridge))


def set_promiscuous(index: int, *, on: bool) -> Message:
    """Have an interface take frames for anybody, or for itself alone."""
    return request(rt.RTM_SETLINK, 0, rt.IFINFO.pack(0, 0, index, IFF_PROMISC if on else 0, IFF_PROMISC))


def new_program(index: int, direction: int, handle: int, descriptor: int, name: str) -> Message:
    """Attach a program, in place of the one that is there."""
    body = _at(index, direction, handle) + tc.program_options(descriptor, name)
    return request(tc.RTM_NEWTFILTER, rt.NLM_F_CREATE, body)


def del_program(index: int, direction: int, handle: int) -> Message:
    """Take a program away."""
    return request(tc.RTM_DELTFILTER, 0, _at(index, direction, handle))


def _at(index: int, direction: int, handle: int) -> bytes:
    return tc.TCMSG.pack(0, index, handle, direction, _PLACE)


def program_at(netlink: Netlink, index: int, direction: int, handle: int) -> str:
    """Return the name of the program that is attached there, or nothing; raises OSError."""
    return tc.name_in(tc.program_in(tc.read_filter(netlink, _at(index, direction, handle))))


def programs_on(netlink: Netlink, index: int) -> list[str]:
    """Return the names of our programs for what comes in through an interface; raises OSError."""
    try:
        answers = netlink.dump(request(tc.RTM_GETTFILTER, 0, _at(index, tc.INGRESS, 0)))
    except OSError as error:
        if error.errno in tc.NOT_THERE:
            return []
        raise
    return [name for _, answer in answers if (name := tc.name_in(tc.program_in(answer)))]


def attach(
    netlink: Netlink,
    index: int,
    direction: int,
    handle: int,
    code: bytes,
    name: str,
    *,
    kind: str = "nsm_vlan",
) -> None:
    """Load a program and attach it; raises OSError, which says what the kernel says."""
    descriptor = bpf.load(code, kind)
    try:
        batch = Batch()
        batch.put(tc.new_place(index))
        batch.put(new_program(index, direction, handle, descriptor, name))
        for failure in netlink.send(batch):
            raise OSError(failure.number, failure.text or os.strerror(failure.number))
    finally:
        os.close(descriptor)


def numbered(netlink: Netlink, index: int) -> bool:
    """Return whether an interface has addresses by which the node itself is reached; raises OSError."""
    return any(one.scope != RT_SCOPE_LINK for one in read_addresses(netlink, index=index))
