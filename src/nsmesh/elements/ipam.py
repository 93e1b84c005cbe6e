"""Ipam: an endpoint gives each connection a pair of addresses from every group of its prefixes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from nsmesh.core.call import Call, Key, State
from nsmesh.core.codecs import json_codec
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Exhausted, Invalid
from nsmesh.model.messages import Connection, IPContext, NetworkServiceRequest, Route
from nsmesh.model.messages import State as Condition
from nsmesh.model.prefix import PoolExhausted, PrefixError, PrefixPool, PrefixSet, find_overlaps

T = TypeVar("T")

Mode = Literal["polite", "strict"]

LEASED: Key[tuple[tuple[str, str], ...]] = Key(
    "leases", json_codec(lambda pairs: tuple((dst, src) for dst, src in pairs))
)
"""In ``call.state``: the pairs that the connection has, endpoint's address first."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Two host addresses: say ``10.0.0.0/32`` for the endpoint and ``10.0.0.1/32`` for the client."""

    pool: PrefixPool
    dst: str
    src: str

    def release(self) -> None:
        """Give both back."""
        self.pool.release(self.dst)
        self.pool.release(self.src)


class Ipam(Element):
    """Point-to-point IPAM: for each group the first free address is the endpoint's, the next the client's.

    Addresses of the pools that the Request already brings are kept if nobody else holds them, so a restarted
    endpoint and a reselecting client come by what they had. Others of the pools are taken out of the Request:
    they are somebody else's. ``polite`` leaves addresses of other origin alone, ``strict`` drops them too;
    a reselecting Request brings what the endpoint before gave, so of that both leave nothing.
    A refresh that newly excludes a held address gets another pair.

    After:  Begin
    Reads:  excluded_prefixes
    Writes: addresses and host routes of both ends
    Leaves: leases, per connection id
    Close:  passes on, then gives the leases back
    """

    after = ("Begin",)

    def __init__(self, groups: Sequence[Sequence[str]], mode: Mode = "polite") -> None:
        overlaps = find_overlaps(prefix for group in groups for prefix in group)
        if overlaps:
            first, second = overlaps[0]
            raise Invalid(
                f"the prefixes {first} and {second} have addresses in common",
                remedy="give each address to one prefix only",
            )
        self._pools = tuple(PrefixPool(group) for group in groups)
        self._mode = mode
        self._leases: dict[str, tuple[Lease, ...]] = {}

    @property
    def leases(self) -> dict[str, tuple[Lease, ...]]:
        """What is given out now, by connection id."""
        return dict(self._leases)

    def keeps(self) -> Collection[str]:
        """Return who has leases."""
        return self._leases.keys()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Give the leases back."""
        for lease in self._leases.pop(connection_id, ()):
            lease.release()

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Lease, write down, pass on; a failure gives back what was new."""
        connection = request.connection
        connection_id = connection.id
        ip = connection.context.ip_context
        old = self._leases.get(connection_id, ())
        new = self._lease(ip, connection_id, old)
        strict = self._mode == "strict" or connection.state == Condition.RESELECT_REQUESTED
        fresh = [lease for lease in new if lease not in old]
        try:
            self._write(ip, new, old, strict=strict)
            answer = await next.request(call, request)
        except BaseException:
            for lease in fresh:
                lease.release()
            raise
        for lease in old:
            if lease not in new:
                lease.release()
        self._leases[connection_id] = new
        call.state.set(LEASED, tuple((lease.dst, lease.src) for lease in new))
        return answer

    async def resume(self, call: Call, connection: Connection) -> None:
        """Take its addresses out of the pools again; those of a pool that is no more are nobody's."""
        leases = [
            Lease(pool, pool.reserve(dst), pool.reserve(src))
            for dst, src in call.state.get(LEASED) or ()
            for pool in self._pools
            if _both_free(pool, dst, src)
        ]
        if leases:
            self._leases[connection.id] = tuple(leases)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then release."""
        try:
            await next.close(call, connection)
        finally:
            await self.forget(connection.id, call.state)

    def _lease(self, ip: IPContext, connection_id: str, old: tuple[Lease, ...]) -> tuple[Lease, ...]:
        """Return one lease per pool; those of ``old`` that are not excluded among them."""
        excluded = _excluded(ip)
        kept = {
            id(lease.pool): lease
            for lease in old
            if not excluded or (lease.dst not in excluded and lease.src not in excluded)
        }
        leases: list[Lease] = []
        try:
            for pool in self._pools:
                lease = kept.get(id(pool)) or _recover(pool, ip, excluded)
                leases.append(lease or Lease(pool, *pool.allocate_pair(excluded)))
        except PoolExhausted as error:
            for lease in leases:
                if lease not in old:
                    lease.release()
            raise Exhausted(
                f"no addresses for connection {connection_id}: {error.what}", remedy=error.remedy
            ) from error
        return tuple(leases)

    def _write(self, ip: IPContext, leases: Iterable[Lease], old: Iterable[Lease], *, strict: bool) -> None:
        """Make the context say what is leased, and nothing else of the pools."""
        held_src = [lease.src for lease in leases]
        held_dst = [lease.dst for lease in leases]
        former = {address for lease in old for address in (lease.src, lease.dst)}

        def foreign(address: str) -> bool:
            if address in former:
                return True
            return strict or self._is_ours(address)

        gone_src = [address for address in ip.src_ip_addrs if address not in held_src and foreign(address)]
        gone_dst = [address for address in ip.dst_ip_addrs if address not in held_dst and foreign(address)]
        _remove(ip.src_ip_addrs, lambda address: address in gone_src)
        _remove(ip.dst_ip_addrs, lambda address: address in gone_dst)
        _remove(ip.src_routes, lambda route: route.prefix in gone_dst)
        _remove(ip.dst_routes, lambda route: route.prefix in gone_src)
        _add(ip.src_ip_addrs, held_src)
        _add(ip.dst_ip_addrs, held_dst)
        _route(ip.src_routes, held_dst)
        _route(ip.dst_routes, held_src)

    def _is_ours(self, address: str) -> bool:
        try:
            return any(address in pool for pool in self._pools)
        except PrefixError:
            return False  # no address at all: whoever wires it says so


def _excluded(ip: IPContext) -> PrefixSet:
    """Return what a Request excludes; raises Invalid for what is no prefix."""
    try:
        return PrefixSet(ip.excluded_prefixes)
    except PrefixError as error:
        raise Invalid(f"excluded_prefixes: {error.what}", remedy=error.remedy) from error


def _recover(pool: PrefixPool, ip: IPContext, excluded: PrefixSet) -> Lease | None:
    """Take a pair that the Request brings, if both are in the pool and free."""
    for dst in _free(pool, ip.dst_ip_addrs, excluded):
        for src in _free(pool, ip.src_ip_addrs, excluded):
            if src != dst:
                return Lease(pool, pool.reserve(dst, excluded), pool.reserve(src, excluded))
    return None


def _free(pool: PrefixPool, addresses: Iterable[str], excluded: PrefixSet) -> list[str]:
    free: dict[str, None] = {}
    for address in addresses:
        try:
            if pool.is_free(address, excluded):
                free[address.partition("/")[0]] = None
        except PrefixError:
            continue  # no address at all: whoever wires it says so
    return list(free)


def _both_free(pool: PrefixPool, dst: str, src: str) -> bool:
    try:
        return pool.is_free(dst) and pool.is_free(src)
    except PrefixError:
        return False


def _remove(items: MutableSequence[T], unwanted: Callable[[T], bool]) -> None:
    for number in reversed(range(len(items))):
        if unwanted(items[number]):
            del items[number]


def _add(addresses: MutableSequence[str], wanted: Iterable[str]) -> None:
    addresses.extend([address for address in wanted if address not in addresses])


def _route(routes: MutableSequence[Route], wanted: Iterable[str]) -> None:
    present = {route.prefix for route in routes}
    routes.extend([Route(prefix=prefix) for prefix in wanted if prefix not in present])
