"""Making the device of a tunnel: sent to the kernel, or moved into the pod; what a refusal means."""

from __future__ import annotations

import errno
import itertools
import os

from nsmesh.core.errors import Refused
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.base import TunnelTaken
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Failure, Message, Netlink, attribute, request, u32
from nsmesh.datapath.rtread import read_link
from nsmesh.datapath.veth import End, NameTaken, find_link

IFLA_NEW_IFINDEX = 49

_AGAIN = "ask again: another one is chosen"
_numbers = itertools.count(1)


def passing_name() -> str:
    """Return a name for a device that is in the node for a moment, before it moves into its pod."""
    return f"nsm-{os.getpid() % 0x10_0000:x}-{next(_numbers) % 0x10_0000:x}"


def described(kind: str, data: bytes) -> bytes:
    """Return what a request for a new interface says of its kind and what belongs to that kind."""
    info = attribute(rt.IFLA_INFO_KIND, kind.encode() + b"\0")
    if data:
        info += attribute(rt.IFLA_INFO_DATA | rt.NLA_F_NESTED, data)
    return attribute(rt.IFLA_LINKINFO | rt.NLA_F_NESTED, info)


def new_link(
    end: tuple[int, str, bytes, int], namespace: int, kind: tuple[str, bytes], group: int
) -> Message:
    """Return the request for a device of ``kind`` (name and data) that is made where it stays.

    ``end`` is (index, name, MAC, MTU); ``namespace`` is where that is.
    """
    body = rt.new_end(*end, group) + u32(rt.IFLA_NET_NS_FD, namespace) + described(*kind)
    return request(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)


def send_new(node: Netlink, end: End, message: Message, remote: str, tunnel: str) -> bool:
    """Have a device made directly in its pod; return False where its index is in use, with nothing made.

    ``node`` is a socket of the namespace that has the underlay; ``tunnel`` says which tunnel it is. Raises
    NameTaken where the name is in use, TunnelTaken where another device is that tunnel, else MeshError.
    """
    batch = Batch()
    batch.put(message)
    for failure in node.send(batch):
        return _refused(failure, end, remote, tunnel)
    return True


def _refused(failure: Failure, end: End, remote: str, tunnel: str) -> bool:
    if failure.number == errno.EEXIST:
        if find_link(end.place, name=end.name):
            raise NameTaken
        if not find_link(end.place, index=end.ifindex):
            raise TunnelTaken(f"{tunnel} of this node is another wire's", remedy=_AGAIN)
    if failure.number in {errno.EBUSY, errno.EEXIST}:
        return False
    raise explain(failure.number, f"cannot make {end} towards {remote}", failure.text)


def make_and_move(
    node: Netlink, end: End, mtu: int, kind: tuple[str, bytes], group: int, remote: str, tunnel: str
) -> bool:
    """Make a device of ``kind`` (name and data) in the node and move it into its pod: see :func:`send_new`.

    For kinds whose packets leave by the namespace in which the device was made.
    """
    name = passing_name()
    body = rt.IFINFO.pack(0, 0, 0, 0, 0) + attribute(rt.IFLA_IFNAME, name.encode() + b"\0")
    body += u32(rt.IFLA_GROUP, group) + described(*kind)
    batch = Batch()
    batch.put(request(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body))
    for failure in node.send(batch):
        if failure.number == errno.EEXIST:
            raise TunnelTaken(f"{tunnel} of this node is another wire's", remedy=_AGAIN)
        raise explain(failure.number, f"cannot make {end} towards {remote}", failure.text)
    try:
        moved = move(node, name, end, mtu, group)
    except BaseException:
        _delete(node, name)
        raise
    if not moved:
        _delete(node, name)
    return moved


def move(node: Netlink, name: str, end: End, mtu: int, group: int) -> bool:
    """Move a device of the node into its pod; False where its index is in use, and it stays then.

    It is down and unnumbered there. Raises NameTaken where the name is in use, else MeshError.
    """
    link = read_link(node, name=name)
    if link is None:
        raise Refused(f"{end} is gone before it was there", remedy="ask again; look into the log")
    body = (
        rt.IFINFO.pack(0, 0, link.index, 0, 0)
        + u32(rt.IFLA_NET_NS_FD, end.place.descriptor)
        + attribute(rt.IFLA_IFNAME, end.name.encode() + b"\0")
        + u32(IFLA_NEW_IFINDEX, end.ifindex)
    )
    batch = Batch()
    batch.put(request(rt.RTM_SETLINK, 0, body))
    for failure in node.send(batch):
        if failure.number in {errno.EEXIST, errno.EBUSY}:
            if find_link(end.place, name=end.name):
                raise NameTaken
            return False
        raise explain(failure.number, f"cannot move {end} into its namespace", failure.text)
    batch = Batch()
    batch.put(rt.set_group(end.ifindex, group))
    if mtu:
        batch.put(rt.set_mtu(end.ifindex, mtu))
    for failure in end.place.netlink.send(batch):
        raise explain(failure.number, f"cannot configure {end}", failure.text)
    return True


def _delete(node: Netlink, name: str) -> None:
    body = rt.IFINFO.pack(0, 0, 0, 0, 0) + attribute(rt.IFLA_IFNAME, name.encode() + b"\0")
    batch = Batch()
    batch.put(request(rt.RTM_DELLINK, 0, body))
    node.send(batch)
