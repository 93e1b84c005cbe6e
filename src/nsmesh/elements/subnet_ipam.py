"""SubnetIpam: an endpoint gives each connection an address of a network that all its neighbours are in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, MutableSequence, Sequence
from dataclasses import dataclass

from nsmesh.core.call import Call, Key, State
from nsmesh.core.codecs import json_codec
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Exhausted, Invalid
from nsmesh.model.messages import Connection, IPContext, NetworkServiceRequest
from nsmesh.model.prefix import PoolExhausted, PrefixError, PrefixPool, PrefixSet
from nsmesh.model.vlan import Subnet

ADDRESSES: Key[tuple[str, ...]] = Key("addresses", json_codec(tuple))
"""In ``call.state``: the addresses that the connection has, in full form, one of each network."""


@dataclass(frozen=True, slots=True)
class Held:
    """An address that a connection has, in full form, and as its interface gets it: ``10.0.0.1/24``."""

    pool: PrefixPool
    address: str
    length: int

    @property
    def text(self) -> str:
        """The address with the length of its network."""
        return f"{self.address.partition('/')[0]}/{self.length}"


class SubnetIpam(Element):
    """Gives the client one address of each network, with the network's length, and the endpoint none.

    ``domain`` says which services share their networks: the same address may be given in each domain. An
    address that the Request brings and nobody holds is kept: a restarted endpoint gives what it gave.

    After:  Begin
    Reads:  excluded_prefixes
    Writes: the client's addresses
    Leaves: addresses, per connection id
    Close:  passes on, then gives the addresses back
    """

    after = ("Begin",)

    def __init__(self, subnets: Sequence[Subnet], domain: Callable[[str], Hashable]) -> None:
        self._subnets = tuple(subnets)
        self._domain = domain
        self._pools: dict[Hashable, tuple[PrefixPool, ...]] = {}
        self._held: dict[str, tuple[Held, ...]] = {}

    def keeps(self) -> Collection[str]:
        """Return who has addresses."""
        return self._held.keys()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Give the addresses back."""
        _release(self._held.pop(connection_id, ()))

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Take addresses, write them down, pass on; a failure gives back what was new."""
        connection = request.connection
        ip = connection.context.ip_context
        old = self._held.get(connection.id, ())
        pools = self._pools_of(connection.network_service)
        new = self._take(pools, ip, old, connection.id)
        _write(ip.src_ip_addrs, new, old, pools)
        try:
            answer = await next.request(call, request)
        except BaseException:
            _release(held for held in new if held not in old)
            raise
        _release(held for held in old if held not in new)
        self._held[connection.id] = new
        call.state.set(ADDRESSES, tuple(held.address for held in new))
        return answer

    async def resume(self, call: Call, connection: Connection) -> None:
        """Take its addresses out of the pools again; those of a network that is no more are nobody's."""
        found = [
            Held(pool, pool.reserve(address), subnet.network.prefixlen)
            for address in call.state.get(ADDRESSES) or ()
            for pool, subnet in zip(self._pools_of(connection.network_service), self._subnets, strict=True)
            if address in pool and pool.is_free(address)
        ]
        if found:
            self._held[connection.id] = tuple(found)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then release."""
        try:
            await next.close(call, connection)
        finally:
            await self.forget(connection.id, call.state)

    def _pools_of(self, service: str) -> tuple[PrefixPool, ...]:
        domain = self._domain(service)
        if domain not in self._pools:
            self._pools[domain] = tuple(subnet.pool() for subnet in self._subnets)
        return self._pools[domain]

    def _take(
        self, pools: Sequence[PrefixPool], ip: IPContext, old: Sequence[Held], owner: str
    ) -> tuple[Held, ...]:
        found: list[Held] = []
        try:
            excluded = PrefixSet(ip.excluded_prefixes)
            for pool, subnet in zip(pools, self._subnets, strict=True):
                kept = next(
                    (held for held in old if held.pool is pool and held.address not in excluded), None
                )
                address = kept.address if kept else _brought(pool, ip, excluded) or pool.allocate(excluded)
                found.append(kept or Held(pool, address, subnet.network.prefixlen))
        except PrefixError as error:
            _release(held for held in found if held not in old)
            kind = Exhausted if isinstance(error, PoolExhausted) else Invalid
            raise kind(f"no addresses for connection {owner}: {error.what}", remedy=error.remedy) from error
        return tuple(found)


def _brought(pool: PrefixPool, ip: IPContext, excluded: PrefixSet) -> str:
    """Take an address that the Request brings, if it is the pool's and free."""
    for address in ip.src_ip_addrs:
        try:
            if pool.is_free(address, excluded):
                return pool.reserve(address, excluded)
        except PrefixError:
            continue  # no address at all: whoever wires it says so
    return ""


def _write(
    addresses: MutableSequence[str], new: Iterable[Held], old: Iterable[Held], pools: Sequence[PrefixPool]
) -> None:
    """Make the addresses say what is held; others of the pools, or that were held, go."""
    wanted = [held.text for held in new]
    former = {held.text for held in old}
    kept = [text for text in addresses if text not in former and not _is_of(pools, text)]
    addresses[:] = [*kept, *wanted]


def _is_of(pools: Sequence[PrefixPool], address: str) -> bool:
    try:
        return any(address in pool for pool in pools)
    except PrefixError:
        return False


def _release(given: Iterable[Held]) -> None:
    for held in given:
        held.pool.release(held.address)
