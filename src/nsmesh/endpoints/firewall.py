"""The firewall: a network function in the middle of a chain that lets pass what its rules allow.

Its use: docs/reference/endpoints/firewall.md. How it works: :mod:`nsmesh.endpoints.firewall_table`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Internal, Invalid, NotFound
from nsmesh.core.metrics import ReadCounter
from nsmesh.endpoints.firewall_table import Counted
from nsmesh.endpoints.options import reading, structure
from nsmesh.endpoints.rules import Ruleset, parse_ruleset, parse_ruleset_text
from nsmesh.endpoints.transparent import Passage, Transparent
from nsmesh.model.messages import KERNEL, Connection, Mechanism, NetworkServiceRequest


@dataclass(frozen=True, kw_only=True)
class FirewallOptions:
    """What a firewall lets pass."""

    rules: list[Any] = field(default_factory=list, metadata=reading(structure, "list of rules"))
    """The rules, in order; the first that matches wins."""
    default: str = "deny"
    """What happens where no rule matches: allow or deny."""
    deny_with: str = "reject"
    """How to deny: reject (the client of TCP or UDP is told so at once) or drop."""
    other_ethertypes: str = "deny"
    """What happens to frames that are neither IP nor ARP: allow or deny."""
    config: str = field(default="", metadata={"variable": "NSM_ACL_CONFIG_PATH"})
    """A YAML file with rules and the three options above, in place of them; re-read on SIGHUP."""

    def ruleset(self) -> Ruleset:
        """Return the rules, from the file where one is named. Raises Invalid or NotFound."""
        if not self.config:
            options = {
                "rules": self.rules,
                "default": self.default,
                "deny_with": self.deny_with,
                "other_ethertypes": self.other_ethertypes,
            }
            return parse_ruleset(options, source="the firewall's options")
        if self.rules:
            raise Invalid(
                f"the firewall has rules in its options and in {self.config}", remedy="keep one of the two"
            )
        try:
            text = Path(self.config).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise NotFound(f"the firewall's rules cannot be read from {self.config}: {error}") from None
        return parse_ruleset_text(text, source=self.config)


_LABELS = ("connection", "rule")
PACKETS = ReadCounter("nsm_firewall_packets", "Packets that a rule has decided on, or let pass.", _LABELS)
BYTES = ReadCounter("nsm_firewall_bytes", "Bytes that a rule has decided on, or let pass.", _LABELS)


class Firewall(Element):
    """Lets each connection pass, by the rules, from the interface it serves to the one it was given.

    After:  Begin, SelectMechanism
    Reads:  mechanism, DOWNSTREAM (left by TranslateMechanism behind it)
    Leaves: one nftables table per connection, in the process's own network namespace
    Close:  removes the table, then passes on
    """

    after = ("Begin", "SelectMechanism")

    def __init__(self, ruleset: Ruleset, *, lifetime: float = 600.0) -> None:
        self._transparent = Transparent(self.scope, ruleset)
        self._lifetime = lifetime

    @property
    def passages(self) -> dict[str, Passage]:
        """How far each connection is, by its id."""
        return self._transparent.passages

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Follow the interfaces; sweep tables of an earlier run that nobody refreshed within a lifetime."""
        self._transparent.scope = self.scope
        async with self._transparent.running():
            counts = _Counts(self)
            sweep = self.scope.after(self._lifetime, self._start_sweep)
            try:
                with PACKETS.reading(counts.packets), BYTES.reading(counts.bytes):
                    yield self
            finally:
                sweep.cancel()

    def _start_sweep(self) -> None:
        async def work() -> None:
            await self._transparent.sweep()

        self.scope.spawn(work(), name="firewall: sweep")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Ask on, then join the two interfaces; they may appear after the answer."""
        answer = await next.request(call, request)
        downstream = call.state.get(DOWNSTREAM)
        if downstream is None:
            raise Internal(
                f"the next endpoint gave connection {answer.id} no mechanism, or this chain did not keep it",
                remedy="put a TranslateMechanism behind Firewall; else look at that endpoint's answer",
            )
        await self._transparent.wire(answer.id, _interface(answer.mechanism), _interface(downstream))
        return answer

    async def resume(self, call: Call, connection: Connection) -> None:
        """Join the two interfaces by the rules of now; what stands as it should is left alone."""
        downstream = call.state.get(DOWNSTREAM)
        if downstream is not None:
            near, far = _interface(connection.mechanism), _interface(downstream)
            await self._transparent.wire(connection.id, near, far)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Let nothing pass any more, then close on."""
        try:
            await self._transparent.unwire(connection.id)
        finally:
            await next.close(call, connection)

    async def reload(self, ruleset: Ruleset) -> None:
        """Exchange the rules of all connections; established flows go on. See :meth:`Transparent.reload`."""
        await self._transparent.reload(ruleset)

    async def counters(self) -> dict[str, list[Counted]]:
        """Return the counters of each connection that passes, by its id."""
        wired = [passage.id for passage in self.passages.values() if passage.ready.is_set()]
        return {wire_id: await self._transparent.counters(wire_id) for wire_id in wired}


class _Counts:
    """The kernel's counters, as metrics."""

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall

    async def packets(self) -> dict[tuple[str, ...], float]:
        return await self._read(lambda counted: counted.packets)

    async def bytes(self) -> dict[tuple[str, ...], float]:
        return await self._read(lambda counted: counted.bytes)

    async def _read(self, part: Callable[[Counted], int]) -> dict[tuple[str, ...], float]:
        found = await self._firewall.counters()
        return {(wire, one.name): part(one) for wire, rules in found.items() for one in rules}


def _interface(mechanism: Mechanism) -> str:
    name = mechanism.parameters.get("name", "")
    if mechanism.type != KERNEL or not name:
        raise Invalid(
            f"a firewall stands between kernel interfaces, not on {mechanism.type or 'nothing'}",
            remedy="let both neighbours use the KERNEL mechanism",
        )
    return name
