"""From what is to what shall be: the operations, in an order that the kernel accepts. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from nsmesh.datapath.packed import Prefix, mac_text
from nsmesh.datapath.wirestate import EndState, Item, RouteState


class Add(NamedTuple):
    """Add an address, route, neighbour or rule; one that is there already is replaced."""

    item: Item

    def __str__(self) -> str:
        return f"add {describe(self.item)}"


class Remove(NamedTuple):
    """Remove an address, route, neighbour or rule; one that is not there is removed already."""

    item: Item

    def __str__(self) -> str:
        return f"remove {describe(self.item)}"


class Set(NamedTuple):
    """Set a property of the interface: ``mac`` (bytes), ``mtu`` (int), ``up`` or ``ipv6`` (bool)."""

    field: Literal["mac", "mtu", "up", "ipv6"]
    value: bytes | int | bool

    def __str__(self) -> str:
        value = mac_text(self.value) if isinstance(self.value, bytes) else self.value
        return f"set {self.field} to {value}"


class Promote(NamedTuple):
    """Let the next address of a subnet take over when its first one is removed."""

    def __str__(self) -> str:
        return "promote secondary addresses"


Operation: TypeAlias = Add | Remove | Set | Promote

T = TypeVar("T")


def describe(item: Item) -> str:
    """Return an item as it is called in a sentence."""
    return f"the address {item}" if isinstance(item, Prefix) else f"the {item}"


def diff(desired: EndState, existing: EndState) -> list[Operation]:
    """Return what to do so that ``existing`` becomes ``desired``; nothing where it already is.

    Make before break: what is new is added before what is old goes, because the kernel drops all IPv4 routes
    of an interface together with its last address.
    """
    operations: list[Operation] = []
    if existing.ipv6 is not None and desired.ipv6 is not None and desired.ipv6 != existing.ipv6:
        operations.append(Set("ipv6", desired.ipv6))
    if desired.mac and desired.mac != existing.mac:
        operations.append(Set("mac", desired.mac))
    if desired.mtu and desired.mtu != existing.mtu:
        operations.append(Set("mtu", desired.mtu))
    if desired.up != existing.up:
        operations.append(Set("up", desired.up))
    present = {*existing.addresses, *existing.narrower}
    old_addresses = set(existing.addresses).difference(desired.addresses)
    operations += (Add(address) for address in desired.addresses if address not in present)
    operations += map(Add, ordered(desired.neighbours - existing.neighbours))
    new_routes = desired.routes - existing.routes
    old_routes = existing.routes - desired.routes
    blunt = _blunt(old_routes, new_routes)
    operations += map(Remove, ordered(blunt))
    operations += map(Add, ordered(new_routes))
    operations += map(Add, ordered(desired.rules - existing.rules))  # after the routes that they lead to
    kept_ips = {neighbour.ip for neighbour in desired.neighbours}
    operations += map(Remove, ordered(existing.rules - desired.rules))
    operations += map(Remove, ordered(old_routes - blunt))
    operations += (
        Remove(neighbour)
        for neighbour in ordered(existing.neighbours - desired.neighbours)
        if neighbour.ip not in kept_ips  # that one is replaced, and there is one entry for an address
    )
    if any(len(address.address) == 4 for address in old_addresses):
        operations.append(Promote())
    operations += map(Remove, ordered(old_addresses))
    return operations


def _blunt(old: Collection[RouteState], new: Collection[RouteState]) -> frozenset[RouteState]:
    """Return the old routes whose removal could hit a new one.

    The kernel takes a removal without gateway for any route of that prefix through the interface, so these
    have to go first.
    """
    coming = {(route.prefix, route.table) for route in new}
    return frozenset(route for route in old if not route.via and (route.prefix, route.table) in coming)


def ordered(items: Collection[T]) -> Collection[T]:
    """Return items in a fixed order: the same wish gives the same bytes."""
    return sorted(items, key=repr) if len(items) > 1 else items
