"""Pairs of ports that are made in advance: what of them is in the kernel.

A pair has two ports of the switch, and each port is one end of a veth whose other end waits, up, in a
namespace apart. For a wire the frames of a waiting end are led to the wire's own end beside it and back. So
nothing changes in the switch's namespace then, where each change has the switch look at all of its ports.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from nsmesh.core.errors import Conflict, MeshError, Refused, Unavailable
from nsmesh.datapath import netns, redirect, rtread, veth
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath import traffic_control as tc
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Netlink
from nsmesh.datapath.ovs_rows import SPARE, ports_of
from nsmesh.datapath.places import Doors

GROUP = 0x6D_6E_73_70
"""IFLA_GROUP of both ends of these veths: a driver's sweep leaves them alone."""
MTU = 1500
"""What these ends carry; a wire of longer frames has ports of its own."""
ALIAS = "made in advance for the wires of a switch"
_IPV6 = Path("/proc/sys/net/ipv6")
_UNREACHED = "another program has taken interfaces of nsmesh away; ask again"


class Ends:
    """The ends at a switch in the namespace ``home``, and those that wait in the namespace ``place``."""

    def __init__(self, home: str, place: str) -> None:
        self._home = home
        self.place = place
        self._doors: Doors | None = None
        self._far: dict[str, int] = {}
        """Indexes of the waiting ends by the names of their ports, which are theirs too."""

    def make(self, pairs: Iterable[str]) -> None:
        """Make the veths of pairs, ready for the switch; takes some milliseconds. Raises MeshError."""
        self._make_place()
        names = [name for pair in pairs for name in ports_of(pair)]
        near = {name: veth.fresh_index() for name in names}
        far = {name: veth.fresh_index() for name in names}
        with netns.call_in(self._home, Netlink) as here, netns.call_in(self.place, Netlink) as there:
            place = netns.open_netns(self.place)
            try:
                batch = Batch()
                for name in names:
                    ends = [(index[name], name, veth.fresh_mac(), MTU) for index in (near, far)]
                    batch.put(rt.new_veth(ends[0], ends[1], place, GROUP), name)
                _send(here, batch, "cannot make the veth of")
            finally:
                os.close(place)
            _send(there, _waiting(far), "cannot set up the waiting end of")
            _send(here, _at_the_switch(near), "cannot set up")
        self._far.update(far)

    def _make_place(self) -> None:
        if not Path(self.place).exists():
            with suppress(Conflict):
                netns.create(Path(self.place).name)

    def look(self) -> set[str]:
        """Return the names of the ports whose other ends wait."""
        try:
            with netns.call_in(self.place, Netlink) as there:
                self._far = {
                    link.name: link.index
                    for link in rtread.read_links(there)
                    if link.group == GROUP and link.name.startswith(SPARE)
                }
        except MeshError:
            self._far = {}
        return set(self._far)

    def join(self, owner: str, ends: dict[str, str]) -> None:
        """Lead all frames of waiting ends to those of a wire and back: ``ends`` by the names of their ports.

        What is so already stays. Raises Unavailable where one of them is gone, Refused where the kernel
        cannot.
        """
        self._doors = self._doors or Doors()
        with self._doors.open([self.place]) as places:
            netlink = places[self.place].netlink
            for port, name in ends.items():
                far, near = self._far.get(port), veth.find_link(places[self.place], name=name)
                if far is None or near is None or near.owner != owner:
                    raise Unavailable(f"{name} of connection {owner} cannot be joined", remedy=_UNREACHED)
                if why := redirect.join(netlink, far, near.index):
                    raise Refused(
                        f"frames of connection {owner} cannot be led to the switch: {why}",
                        remedy="the kernel needs sch_ingress, cls_u32 and act_mirred; or set "
                        "NSM_SPARE_WIRES to 0",
                    )

    def drop(self, names: Collection[str]) -> None:
        """Delete veths, by the names of their ports."""
        for name in names:
            self._far.pop(name, None)
        with suppress(MeshError), netns.call_in(self.place, Netlink) as there:
            doomed = Batch()
            for link in rtread.read_links(there):
                if link.group == GROUP and link.name in names:
                    doomed.put(rt.set_group(link.index, veth.DOOMED_GROUP))
            doomed.put(rt.delete_group(veth.DOOMED_GROUP))
            there.send(doomed)

    def take_away(self) -> None:
        """Delete all of these veths, and the namespace where they wait."""
        self.drop(self.look())
        if Path(self.place).exists():
            netns.delete(Path(self.place).name)

    def close(self) -> None:
        """Let go of everything; all that was made stays."""
        if self._doors is not None:
            self._doors.close()
            self._doors = None


def default_place(directory: Path) -> str:
    """Return the path of the namespace in which the ends of a switch in ``directory`` wait."""
    return f"{netns.RUN_NETNS}/nsm-ends-{hashlib.sha256(str(directory).encode()).hexdigest()[:10]}"


def take_away(home: str, place: str) -> None:
    """Delete all that was made in advance, and the namespace where its ends wait."""
    if not Path(place).exists():
        return
    with suppress(MeshError), netns.call_in(home, Netlink) as here:
        batch = Batch()
        batch.put(rt.delete_group(GROUP))
        here.send(batch)
    netns.delete(Path(place).name)


def new_pair() -> str:
    """Return the name of a pair: those of its ports begin with it."""
    return f"{SPARE}{secrets.token_hex(5)}"


def _waiting(indexes: dict[str, int]) -> Batch:
    batch = Batch()
    for name, index in indexes.items():
        batch.put(rt.mark(index, ALIAS, no_link_local=_IPV6.exists()), name)
        batch.put(tc.new_place(index), name)
        batch.put(rt.set_up(index), name)
    return batch


def _at_the_switch(indexes: dict[str, int]) -> Batch:
    batch = Batch()
    for name, index in indexes.items():
        batch.put(rt.mark(index, ALIAS, no_link_local=_IPV6.exists()), name)
        batch.put(rt.set_promiscuous(index), name)
    return batch


def _send(netlink: Netlink, batch: Batch, what: str) -> None:
    for failure in netlink.send(batch):
        raise explain(failure.number, f"{what} {failure.about}, which is made in advance", failure.text)
