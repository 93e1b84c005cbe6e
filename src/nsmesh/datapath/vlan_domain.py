"""A VLAN of an interface on this node: a bridge that its wires are ports of, and one port that leads out.

The port that leads out is the kernel's own VLAN device, or, where the kernel has none, one end of a veth pair
on which two small programs put tags on and take them off. The node itself has no part in it: what the bridge
would hand to the node is dropped. All programs of a node that use a VLAN of an interface share its bridge.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nsmesh.core.errors import NotFound, Refused
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath import traffic_control as tc
from nsmesh.datapath import veth
from nsmesh.datapath import vlan_messages as vm
from nsmesh.datapath import vlan_program as program
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Message, Netlink
from nsmesh.datapath.places import Place
from nsmesh.datapath.rtread import Link
from nsmesh.datapath.veth import DOOMED_GROUP

VLAN_GROUP = 0x6E_73_6C_FF
"""IFLA_GROUP of bridges and what belongs to them: no driver's own, as several may share them."""
MOST = 4094
"""Largest VLAN that a frame can belong to."""

_NAME = re.compile(r"vl([0-9a-f]+)b(\d+)")
_IPV6 = Path("/proc/net/if_inet6").exists()
_LOCAL_HANDLE = 1
_TRIES = 4


class Domain(NamedTuple):
    """A VLAN of the interface with an index, and the names of what is made for it."""

    interface: int
    vlan: int

    @property
    def bridge(self) -> str:
        """The bridge."""
        return f"vl{self.interface:x}b{self.vlan}"

    @property
    def way_out(self) -> str:
        """The port of the bridge that leads out."""
        return f"vl{self.interface:x}u{self.vlan}"

    @property
    def other_end(self) -> str:
        """The other end of a veth pair, which stands for nothing."""
        return f"vl{self.interface:x}t{self.vlan}"

    @property
    def handle(self) -> int:
        """The number of the program that takes its frames from the interface."""
        return self.vlan + 1


def domain_of(device: vm.Device) -> Domain | None:
    """Return the domain whose bridge an interface is, or None."""
    found = _NAME.fullmatch(device.name) if device.group == VLAN_GROUP else None
    return Domain(int(found[1], 16), int(found[2])) if found else None


def ensure(place: Place, interface: str, vlan: int, *, by_kernel: bool = True) -> tuple[Domain, int, bool]:
    """Make what a VLAN needs and is not there; return it, its bridge's index, and whether there was anything.

    ``by_kernel`` false never makes the kernel's own VLAN devices. Raises MeshError and OSError.
    """
    parent = veth.find_link(place, name=interface)
    if parent is None:
        raise NotFound(
            f"this node has no interface {interface} for VLAN {vlan}",
            remedy="correct the forwarder's device selector file, or add the interface to the node",
        )
    if not parent.up:
        raise Refused(f"the interface {interface} is down", remedy=f"ip link set {interface} up")
    if not 0 <= vlan <= MOST:
        raise Refused(f"VLAN {vlan} does not exist", remedy=f"use 1 to {MOST}, or 0 for frames without a tag")
    domain = Domain(parent.index, vlan)
    bridge, changed = _bridge(place, domain, parent)
    return domain, bridge, _way_out(place, domain, parent, bridge, by_kernel=by_kernel) or changed


def join(place: Place, bridge: int, name: str) -> bool:
    """Make an interface a port of a bridge; return whether it was not. Raises MeshError and OSError."""
    found = vm.find(place.netlink, name=name)
    if found is None:
        raise explain(errno.ENODEV, f"cannot join {name} to its VLAN")
    if found.master == bridge:
        return False
    _send(place.netlink, [vm.set_master(found.index, bridge)], f"cannot join {name} to its VLAN")
    return True


def drop_empty(place: Place) -> bool:
    """Close the bridges that no wire uses, for whoever deletes; return whether there were any."""
    empty = list(_idle(place.netlink))
    for domain, devices in empty:
        _drop(place, domain, devices)
    return bool(empty)


def idle_bridges(netlink: Netlink) -> list[str]:
    """Return the names of bridges that no wire uses; raises OSError."""
    return [domain.bridge for domain, _ in _idle(netlink)]


def _idle(netlink: Netlink) -> Iterator[tuple[Domain, list[vm.Device]]]:
    """Yield each domain without a wire: its bridge, and its way out if it is there."""
    for found in vm.bridges(netlink):
        domain = domain_of(found)
        if domain is None:
            continue
        ports = vm.ports(netlink, found.index)
        if all(port.name == domain.way_out or port.group == DOOMED_GROUP for port in ports):
            yield domain, [found, *(port for port in ports if port.name == domain.way_out)]


def _bridge(place: Place, domain: Domain, parent: Link) -> tuple[int, bool]:
    """Return the index of the bridge, and whether it had to be made or set up."""
    netlink, name = place.netlink, domain.bridge
    found = vm.find(netlink, name=name)
    made = found is None
    if found is None:
        _make(place, name, lambda index: vm.new_bridge(index, name, veth.fresh_mac(), parent.mtu, VLAN_GROUP))
        found = vm.find(netlink, name=name)
    if found is None or found.kind != "bridge" or found.group != VLAN_GROUP:
        raise Refused(f"an interface {name} is in the way of VLAN {domain.vlan}", remedy="remove it")
    local = "nsm_vlan_local"
    if vm.program_at(netlink, found.index, tc.INGRESS, _LOCAL_HANDLE) != local:
        vm.attach(netlink, found.index, tc.INGRESS, _LOCAL_HANDLE, program.dropping(), local)
        made = True
    if not found.up:
        about = f"nsm: VLAN {domain.vlan} of {parent.name}"
        mark = rt.mark(found.index, about, no_link_local=_IPV6)
        _send(netlink, [mark, rt.set_up(found.index)], f"cannot set up the bridge of {about}")
        made = True
    return found.index, made


def _way_out(place: Place, domain: Domain, parent: Link, bridge: int, *, by_kernel: bool) -> bool:
    """Make the port that leads out, as far as it is not there; return whether that changed anything."""
    netlink, changed = place.netlink, False
    port = vm.find(netlink, name=domain.way_out)
    if port is None:
        changed = True
        if not (by_kernel and domain.vlan and _device(place, domain, parent)):
            _pair(place, domain, parent)
        port = vm.find(netlink, name=domain.way_out)
    if port is None:
        raise explain(errno.ENODEV, f"cannot lead VLAN {domain.vlan} out through {parent.name}")
    if port.kind != "vlan":
        changed = _programs(place, domain, parent, port.index) or changed
    if port.master != bridge or not port.up:
        wanted = [
            rt.mark(port.index, f"nsm: VLAN {domain.vlan} of {parent.name}", no_link_local=_IPV6),
            vm.set_master(port.index, bridge),
            rt.set_up(port.index),
        ]
        other = vm.find(netlink, name=domain.other_end)
        if other is not None:  # without it the port would have no carrier
            wanted += [
                rt.mark(other.index, "nsm: VLAN, unused", no_link_local=_IPV6),
                rt.set_up(other.index),
            ]
        _send(netlink, wanted, f"cannot set up the way out of VLAN {domain.vlan}")
        changed = True
    return changed


def _device(place: Place, domain: Domain, parent: Link) -> bool:
    """Make the kernel's own VLAN device; return False where there is no such thing."""
    name = domain.way_out

    def message(index: int) -> Message:
        return vm.new_vlan(index, name, parent.mac, parent.index, domain.vlan, VLAN_GROUP)

    try:
        _make(place, name, message)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT}:
            return False
        if error.errno == errno.EEXIST:
            raise Refused(
                f"VLAN {domain.vlan} of {parent.name} is a device of somebody else's on this node",
                remedy="remove that VLAN device, or choose another VLAN",
            ) from error
        raise
    return True


def _pair(place: Place, domain: Domain, parent: Link) -> None:
    """Make a veth pair, of which one end is only there to give the other a carrier."""
    if not domain.vlan and vm.numbered(place.netlink, parent.index):
        raise Refused(
            f"frames without a tag on {parent.name} are this node's own: it has addresses there",
            remedy="use a VLAN from 1 on, or an interface without addresses",
        )

    def message(index: int) -> Message:
        first = (index, domain.way_out, veth.fresh_mac(), parent.mtu)
        second = (veth.fresh_index(), domain.other_end, veth.fresh_mac(), parent.mtu)
        return rt.new_veth(first, second, None, VLAN_GROUP)

    _make(place, domain.way_out, message)


def _programs(place: Place, domain: Domain, parent: Link, port: int) -> bool:
    """Have tags put on and taken off; return whether that was to be done."""
    netlink, changed = place.netlink, False
    name = f"nsm_vlan{domain.vlan}_{parent.index:x}_{port:x}"
    for index, direction, handle, code in (
        (port, tc.EGRESS, _LOCAL_HANDLE, program.tagging(domain.vlan, parent.index)),
        (parent.index, tc.INGRESS, domain.handle, program.untagging(domain.vlan, port)),
    ):
        if vm.program_at(netlink, index, direction, handle) != name:
            vm.attach(netlink, index, direction, handle, code, name)
            changed = True
    found = vm.find(netlink, index=parent.index)
    if found is not None and not found.promiscuous:  # its frames are for the MACs of pods
        what = f"cannot have {parent.name} take frames for others"
        _send(netlink, [vm.set_promiscuous(parent.index, on=True)], what)
        changed = True
    return changed


def _drop(place: Place, domain: Domain, devices: Iterable[vm.Device]) -> None:
    netlink = place.netlink
    if vm.program_at(netlink, domain.interface, tc.INGRESS, domain.handle).startswith("nsm_vlan"):
        last = [vm.del_program(domain.interface, tc.INGRESS, domain.handle)]
        if len(vm.programs_on(netlink, domain.interface)) == 1:
            last.append(vm.set_promiscuous(domain.interface, on=False))
        _send(netlink, last, f"cannot end VLAN {domain.vlan}", gone=True)
    for device in devices:
        veth.retire(place, device.index, rename=True)


def _make(place: Place, name: str, message: Callable[[int], Message]) -> None:
    """Have an interface made with a free index; raises OSError."""
    for left in reversed(range(_TRIES)):
        batch = Batch()
        batch.put(message(veth.fresh_index()))
        failures = place.netlink.send(batch)
        if not failures:
            return
        failure = failures[0]
        taken = failure.number in {errno.EEXIST, errno.EBUSY} and not vm.find(place.netlink, name=name)
        if not left or not taken:
            raise OSError(failure.number, failure.text or os.strerror(failure.number))
        veth.skip_indexes()


def _send(netlink: Netlink, messages: Iterable[Message], what: str, *, gone: bool = False) -> None:
    batch = Batch()
    for message in messages:
        batch.put(message)
    for failure in netlink.send(batch):
        if not (gone and failure.number in {errno.ENOENT, errno.ENODEV, errno.EINVAL}):
            raise explain(failure.number, what, failure.text)
