"""A kernel wire: one veth pair, each end made directly in its own namespace. Works on opened namespaces."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from nsmesh.core.errors import Internal, Refused
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Message
from nsmesh.datapath.packed import Prefix
from nsmesh.datapath.places import Doors, Place
from nsmesh.datapath.plan import Add, Operation, Promote, Remove, Set, diff, ordered
from nsmesh.datapath.refusals import GONE, is_harmless, refusal
from nsmesh.datapath.rtread import Link, read_end, read_link
from nsmesh.datapath.wirestate import (
    INDEX_FIRST,
    INDEX_LIMIT,
    EndState,
    Item,
    NeighbourState,
    RouteState,
    RuleState,
)

DOOMED_GROUP = 0x6E_73_6D_00
"""IFLA_GROUP of interfaces that are closed and wait for their deletion."""

_ROUNDS = 3

_next_index = itertools.count(random.SystemRandom().randrange(INDEX_LIMIT))


def fresh_index() -> int:
    """Return an interface index that is most likely free in any namespace.

    Indexes are ours to choose, which lets everything be sent without waiting for an answer. They follow one
    another from a random start, so that several processes rarely meet.
    """
    return INDEX_FIRST + next(_next_index) % (INDEX_LIMIT - INDEX_FIRST)


def skip_indexes() -> None:
    """Go on choosing from another random start: somebody else is where we are."""
    global _next_index  # noqa: PLW0603 - one counter for all drivers of a process
    _next_index = itertools.count(random.SystemRandom().randrange(INDEX_LIMIT))


def fresh_mac() -> bytes:
    """Return a random MAC, locally administered."""
    raw = os.urandom(6)
    return bytes([raw[0] & 0xFC | 0x02]) + raw[1:]


class End(NamedTuple):
    """One end while it is worked on: where it is, which interface, and whose."""

    place: Place
    name: str
    ifindex: int
    wire_id: str

    def __str__(self) -> str:
        return f"{self.name} in {self.place.path} for connection {self.wire_id}"


class NameTaken(Exception):
    """The kernel refused the pair because one of the names exists."""


def new_pair(a: End, b: End, wanted: tuple[EndState, EndState], group: int) -> bool:
    """Make the pair, down and unnumbered; return False where an index is in use, with nothing made.

    Raises NameTaken where a name is in use, else MeshError.
    """
    first, second = wanted
    batch = Batch()
    batch.put(
        rt.new_veth(
            (a.ifindex, a.name, first.mac, first.mtu),
            (b.ifindex, b.name, second.mac, second.mtu),
            b.place.descriptor if a.place is not b.place else None,
            group,
        )
    )
    for failure in a.place.netlink.send(batch):
        if failure.number == errno.EEXIST and any(find_link(end.place, name=end.name) for end in (a, b)):
            raise NameTaken
        if failure.number in {errno.EBUSY, errno.EEXIST}:
            return False
        raise explain(failure.number, f"cannot make {a} with its peer {b}", failure.text)
    return True


class Configuration(NamedTuple):
    """The requests for a new end: ``first`` those that its filter has to wait for, ``then`` all others."""

    first: Batch
    then: Batch


def configuration(
    index: int,
    wanted: EndState,
    alias: str,
    *,
    ipv6: bool,
    filters: tuple[Sequence[Message], Sequence[Message]] = ((), ()),
) -> Configuration:
    """Return the requests that mark a new end, set it up and give it what it shall have.

    ``ipv6``: whether the kernel has any, and with it link-local addresses that nobody asked for. ``filters``:
    the requests for the filter of its payload, which must be there before the end is up, and before them
    those that make a place for it; where there is none the mark goes with the rest.

    Built before anything is sent: in a pause between two sends the kernel's own work on a link that is up
    takes the global lock, and the next send would wait for it. For the same reason the end is set up late,
    when only the routes are left, which need it: a third less CPU time than the other way round.
    """
    first, then = Batch(), Batch()
    place, filter_ = filters
    (first if place else then).put(rt.mark(index, alias, no_link_local=ipv6), "the owner's mark")
    for message in place:
        first.put(message, "a place for the filter of its payload")
    for message in filter_:
        then.put(message, "the filter of its payload")
    for address in wanted.addresses:
        then.put(rt.address(index, address, add=True), address)
    for neighbour in ordered(wanted.neighbours):
        then.put(rt.neighbour(index, neighbour, add=True), neighbour)
    then.put(rt.set_up(index), "state up")
    for route in ordered(wanted.routes):
        then.put(rt.route(index, route, add=True), route)
    for rule in ordered(wanted.rules):
        then.put(rt.rule(rule, add=True), rule)
    return Configuration(first, then)


def configure(doors: Doors, end: End, wanted: EndState, batch: Batch) -> None:
    """Send a new end its :func:`configuration`; raises MeshError."""
    if wanted.has_room_for_ipv6 and end.place.ipv6 not in {None, wanted.ipv6}:
        _switch_ipv6(doors, end, on=bool(wanted.ipv6))
    try:
        send(end, batch)
    except Refused:  # IPv6 was switched off in the namespace since we looked
        _switch_ipv6(doors, end, on=True)
        send(end, batch)


def converge(doors: Doors, end: End, link: Link, wanted: EndState) -> list[Operation]:
    """Make an existing end as it shall be and return what was done, nothing if it was so already.

    Reads again after each round: one change can undo another (the kernel drops routes with an address).
    """
    done: list[Operation] = []
    current: Link | None = link
    for _ in range(_ROUNDS):
        if current is None:
            raise explain(errno.ENODEV, f"cannot change {end}")
        operations = diff(wanted, _read(end, current))
        if not operations:
            return done
        _perform(doors, end, operations)
        done += operations
        current = find_link(end.place, index=end.ifindex)
    left = diff(wanted, _read(end, current)) if current is not None else done
    if left:
        raise Internal(
            f"cannot bring {end} into the state that was asked for: after {_ROUNDS} rounds there is still to "
            + ", ".join(map(str, left)),
            remedy="look for another program that changes this interface",
        )
    return done


def find_link(place: Place, *, index: int = 0, name: str = "") -> Link | None:
    """Return an interface by index or name, or None; raises MeshError."""
    try:
        return read_link(place.netlink, index=index, name=name)
    except OSError as error:
        raise explain(error.errno or 0, f"cannot read {name or index} in {place.path}") from error


def retire(place: Place, index: int, *, rename: bool = False, down: bool = True) -> bool:
    """Set an interface down and mark it for deletion; with ``rename`` also free its name.

    Returns whether it was there. Its peer loses its carrier with it. Without ``down`` it is only marked: who
    knows that nothing passes through it spares the wait in the kernel that each set-down is.
    """
    batch = Batch()
    if down or rename:  # what is up cannot be renamed in kernels before 6.2
        batch.put(rt.set_up(index, up=False))
    batch.put(rt.set_group(index, DOOMED_GROUP))
    if rename:
        batch.put(rt.set_name(index, f"nsm-x{index:x}"))
    failures = place.netlink.send(batch)
    for failure in failures:
        if failure.number in GONE:
            return False
        raise explain(failure.number, f"cannot close interface {index} in {place.path}", failure.text)
    return True


def remove_rules(place: Place, rules: Iterable[RuleState]) -> None:
    """Remove policy rules; those that are not there are removed already."""
    batch = Batch()
    for rule in rules:
        batch.put(rt.rule(rule, add=False), Remove(rule))
    for failure in place.netlink.send(batch):
        if failure.number not in GONE:
            raise explain(failure.number, f"cannot remove a policy rule in {place.path}", failure.text)


def message_of(operation: Operation, index: int) -> Message:
    """Return the request for one operation (all but ``ipv6``, which has no request)."""
    match operation:
        case Add(item):
            return _item_message(item, index, add=True)
        case Remove(item):
            return _item_message(item, index, add=False)
        case Promote():
            return rt.promote_secondaries(index)
        case Set("mac", bytes(mac)):
            return rt.set_mac(index, mac)
        case Set("up", bool(up)):
            return rt.set_up(index, up=up)
        case Set("mtu", int(mtu)):
            return rt.set_mtu(index, mtu)
    raise AssertionError(operation)  # pragma: no cover - the cases above are all


_MESSAGES: dict[type, Callable[..., Message]] = {
    Prefix: rt.address,
    RouteState: rt.route,
    NeighbourState: rt.neighbour,
}


def _item_message(item: Item, index: int, *, add: bool) -> Message:
    if isinstance(item, RuleState):
        return rt.rule(item, add=add)
    return _MESSAGES[type(item)](index, item, add=add)


def _perform(doors: Doors, end: End, operations: list[Operation]) -> None:
    batch = Batch()
    for operation in operations:
        if isinstance(operation, Set) and operation.field == "ipv6":
            _switch_ipv6(doors, end, on=bool(operation.value))
        else:
            batch.put(message_of(operation, end.ifindex), operation)
    send(end, batch)


def _switch_ipv6(doors: Doors, end: End, *, on: bool) -> None:
    try:
        doors.switch_ipv6(end.place, end.name, on=on)
    except OSError as error:
        raise explain(error.errno or 0, f"cannot switch IPv6 {'on' if on else 'off'} on {end}") from error


def send(end: End, batch: Batch) -> None:
    """Send requests about an end; raises MeshError for the first that is refused."""
    try:
        failures = end.place.netlink.send(batch)
    except OSError as error:
        raise explain(error.errno or 0, f"cannot configure {end}") from error
    for failure in failures:
        if not is_harmless(failure):
            raise refusal(failure, str(end))


def _read(end: End, link: Link) -> EndState:
    try:
        return read_end(end.place.netlink, link)
    except OSError as error:
        raise explain(error.errno or 0, f"cannot read {end}") from error
