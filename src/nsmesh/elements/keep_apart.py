"""KeepApart: no two wires of one client share an address."""

from __future__ import annotations

from collections.abc import Collection

from nsmesh.core.call import Call, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Conflict
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.prefix_set import PrefixError, PrefixSet


class KeepApart(Element):
    """Asks for addresses outside those of the client's other wires, and refuses an answer within them.

    For the wires that end in one network namespace. Addresses and routes of a wire count, except a route to
    everywhere.

    After:  BeginClient
    Writes: context.ip_context.excluded_prefixes; creates both contexts
    Leaves: the prefixes of each wire
    Close:  forgets them, passes on
    """

    after = ("BeginClient", "Refresh", "Heal")

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, ...]] = {}

    def keeps(self) -> Collection[str]:
        """Return whose prefixes are known."""
        return self._taken.keys()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Forget its prefixes."""
        self._taken.pop(connection_id, None)

    def _of_others(self, connection_id: str) -> list[str]:
        others = (prefixes for key, prefixes in self._taken.items() if key != connection_id)
        return list(dict.fromkeys(prefix for prefixes in others for prefix in prefixes))

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Exclude, pass on, check, remember."""
        connection_id = request.connection.id
        request.connection.context.ip_context.SetInParent()
        excluded = request.connection.context.ip_context.excluded_prefixes
        others = self._of_others(connection_id)
        known = set(excluded)
        excluded.extend(prefix for prefix in others if prefix not in known)
        answer = await next.request(call, request)
        ip, taken = answer.context.ip_context, PrefixSet(others)
        for address in (*ip.src_ip_addrs, *ip.dst_ip_addrs):
            if hit := _covering(address, taken):
                raise Conflict(
                    f"endpoint {answer.network_service_endpoint_name} gave {address} to connection "
                    f"{connection_id}, and {hit} is in use by another wire of this client",
                    remedy="let the endpoint honour excluded_prefixes, or use another range of addresses",
                )
        self._taken[connection_id] = _prefixes(answer)
        return answer

    async def resume(self, call: Call, connection: Connection) -> None:  # noqa: ARG002 - the face asks for it
        """Remember its prefixes."""
        self._taken[connection.id] = _prefixes(connection)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Forget, pass on."""
        self._taken.pop(connection.id, None)
        await next.close(call, connection)


def _prefixes(connection: Connection) -> tuple[str, ...]:
    context = connection.context.ip_context
    found = [
        *context.src_ip_addrs,
        *(route.prefix for route in context.src_routes),
        *context.dst_ip_addrs,
        *(route.prefix for route in context.dst_routes),
    ]
    return tuple(dict.fromkeys(prefix for prefix in found if not prefix.endswith("/0")))


def _covering(address: str, taken: PrefixSet) -> str:
    """Return the first prefix in which an address lies; empty for none, and for what is no address."""
    try:
        if address not in taken:
            return ""
        return next(prefix for prefix in taken.prefixes if address in PrefixSet((prefix,)))
    except PrefixError:
        return ""  # who makes the wire says what is wrong with it
