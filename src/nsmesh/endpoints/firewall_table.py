"""A ruleset as one nftables table of family ``netdev``: the transparent firewall of one wire. Pure.

Two base chains on the ingress hooks of two interfaces: what comes in on one leaves by the other (``fwd``) or
goes nowhere; the network stack of the namespace never sees it. The family has no connection tracking, so
flows are kept in dynamic sets, written from the client's point of view, by the packets that a rule admits:
what belongs to a flow passes in both directions. Why it is built like this:
docs/decisions/0021-transparent-firewall.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from nsmesh.core.errors import Invalid
from nsmesh.endpoints.rules import Network, Rule, Ruleset, applies

FLOWS = 262_144
"""Flows that one wire may have at once, for each IP version; a new one beyond that is refused."""
OPENING, OPEN, CLOSING = 60, 3600, 30
"""Seconds without a packet after which a TCP flow is forgotten: before data, after data, after FIN or RST."""
EXCHANGE, ECHO, OTHER = 120, 30, 600
"""The same for protocols with ports, for ICMP echo, and for protocols without ports."""

ESTABLISHED, RELATED, DEFAULT, OVERFLOW, ETHERTYPES = (
    "established", "related", "default", "overflow", "other ethertypes",
)  # fmt: skip
"""Names of the counters that belong to no rule."""

_INTERFACE = re.compile(r"[A-Za-z0-9_.@+-]{1,15}")


@dataclass(frozen=True, slots=True)
class Side:
    """One direction: the base chain, the interface it listens to and the chain that sends on."""

    chain: str
    interface: str
    to: str
    directions: tuple[str, str]

    @property
    def forward(self) -> bool:
        """Whether its packets travel from the client towards the service."""
        return "in" in self.directions

    def flow(self, version: int) -> str:
        """Return the key of a flow, client first, as this direction's packets carry it."""
        ip = "ip" if version == 4 else "ip6"
        if self.forward:
            return f"{ip} saddr . {ip} daddr . meta l4proto . th sport . th dport"
        return f"{ip} daddr . {ip} saddr . meta l4proto . th dport . th sport"

    def pair(self, version: int) -> str:
        """Return the key of two hosts, client first."""
        ip = "ip" if version == 4 else "ip6"
        return f"{ip} saddr . {ip} daddr" if self.forward else f"{ip} daddr . {ip} saddr"


@dataclass(frozen=True, slots=True)
class Counted:
    """What one counter has seen. For a rule: the packets that it decided on, to open a flow or to deny."""

    name: str
    packets: int
    bytes: int


def table_name(wire_id: str) -> str:
    """Return the table of a wire; the kernel's names are short, ids are not."""
    return f"nsm_{hashlib.sha256(wire_id.encode()).hexdigest()[:16]}"


def program(
    table: str, inside: str, outside: str, ruleset: Ruleset, *, rewire: bool, can_reject: bool = True
) -> str:
    """Return the text for ``nft -f -`` that makes a wire's table so, in one transaction.

    ``inside`` is the interface towards the client, ``outside`` the one towards the service. With ``rewire``
    the base chains are hooked anew (the interfaces are new); without, rules are exchanged and no packet
    of an established flow notices. Flows and counters are kept both times. Without ``can_reject`` denied
    packets vanish, for kernels that cannot send a refusal from here.
    Raises Invalid where a name cannot be an interface of a rule.
    """
    for name in (inside, outside):
        if not _INTERFACE.fullmatch(name):
            raise Invalid(
                f"the interface name {name!r} cannot stand in a firewall's table",
                remedy="use letters, digits and _ . @ + -, at most 15",
            )
    if not can_reject:
        silent = tuple(replace(rule, deny_with="drop") for rule in ruleset.rules)
        ruleset = replace(ruleset, rules=silent, deny_with="drop")
    sides = (
        Side("from_client", inside, "to_service", ("in", "both")),
        Side("from_service", outside, "to_client", ("out", "both")),
    )
    lines = [f"add table netdev {table}", *_stores(table, ruleset)]
    chains = dict(_chains(sides, ruleset, can_reject=can_reject))
    lines += [f"add chain netdev {table} {chain}" for chain in chains]
    lines += [f"flush chain netdev {table} {chain}" for chain in chains]
    if rewire:
        lines += _hooks(table, sides)
        chains["to_service"] = [f'fwd to "{outside}"']
        chains["to_client"] = [f'fwd to "{inside}"']
    for chain, rules in chains.items():
        lines += [f"add rule netdev {table} {chain} {rule}" for rule in rules]
    return "\n".join(lines) + "\n"


def removal(table: str) -> str:
    """Return the text that removes a table, whether or not it is there."""
    return f"add table netdev {table}\ndelete table netdev {table}\n"


def _stores(table: str, ruleset: Ruleset) -> Iterator[str]:
    flags = f"flags dynamic,timeout; size {FLOWS};"
    for version in (4, 6):
        ip, icmp = ("ip", "icmp") if version == 4 else ("ip6", "icmpv6")
        pair = f"{ip} saddr . {ip} daddr"
        for name, key in (
            ("flows", f"{pair} . meta l4proto . th sport . th dport"),
            ("echoes", f"{pair} . {icmp} id"),
            ("pairs", f"{pair} . meta l4proto"),
        ):
            yield f"add set netdev {table} {name}{version} {{ typeof {key}; {flags} }}"
    for name in (ESTABLISHED, RELATED, DEFAULT, OVERFLOW, ETHERTYPES, *(rule.name for rule in ruleset.rules)):
        yield f'add counter netdev {table} {_counter(name)} {{ comment "{name}"; }}'


def _hooks(table: str, sides: Iterable[Side]) -> Iterator[str]:
    for side in sides:
        # a base chain cannot change its interface: remove what is there, by adding it where it is not
        yield f"add chain netdev {table} {side.chain}"
        yield f"flush chain netdev {table} {side.chain}"
        yield f"delete chain netdev {table} {side.chain}"
        yield (
            f"add chain netdev {table} {side.chain} "
            f'{{ type filter hook ingress device "{side.interface}" priority 0; policy drop; }}'
        )
        yield f"add chain netdev {table} {side.to}"
        yield f"flush chain netdev {table} {side.to}"
        yield (
            f"add rule netdev {table} {side.chain} meta protocol vmap "
            f"{{ ip : goto {side.chain}_4, ip6 : goto {side.chain}_6, arp : goto {side.to} }}"
        )
        yield f"add rule netdev {table} {side.chain} goto {side.chain}_other"


def _counter(name: str) -> str:
    return f"c_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _count(name: str) -> str:
    return f"counter name {_counter(name)}"


def _chains(sides: Iterable[Side], ruleset: Ruleset, *, can_reject: bool) -> Iterator[tuple[str, list[str]]]:
    yield "refuse", _refuse(can_reject=can_reject)
    for side in sides:
        for version in (4, 6):
            yield f"{side.chain}_known_{version}", _known(side, version)
            yield f"{side.chain}_admit_{version}", _admit(side, version)
            yield f"{side.chain}_{version}", [*_stateful(side, version), *_rules(side, version, ruleset)]
        passing = ruleset.other_ethertypes == "allow"
        verdict = f"goto {side.to}" if passing else "drop"
        yield f"{side.chain}_other", [f"{_count(ETHERTYPES)} {verdict}"]


def _refuse(*, can_reject: bool) -> list[str]:
    if not can_reject:
        return ["drop"]
    return [
        "meta l4proto tcp reject with tcp reset",
        "meta l4proto udp reject with icmpx type port-unreachable",
        "drop",
    ]


def _known(side: Side, version: int) -> list[str]:
    """Keep a living flow alive. The bare last ACK of a TCP flow must not make it live longer."""
    keep = f"update @flows{version} {{ {side.flow(version)} timeout %ds }} goto {side.to}"
    return [
        f"tcp flags & (fin | rst) != 0 {keep % CLOSING}",
        f"tcp flags & (syn | psh) != 0 {keep % OPEN}",
        f"meta l4proto != tcp {keep % EXCHANGE}",
        f"goto {side.to}",
    ]


def _admit(side: Side, version: int) -> list[str]:
    """Remember the flow of a packet that a rule lets pass; refuse it where no flow fits in any more."""
    icmp = "icmp" if version == 4 else "icmpv6"
    flow = f"update @flows{version} {{ {side.flow(version)} timeout %ds }} goto {side.to}"
    echo = f"update @echoes{version} {{ {side.pair(version)} . {icmp} id timeout {ECHO}s }}"
    pair = f"update @pairs{version} {{ {side.pair(version)} . meta l4proto timeout {OTHER}s }}"
    return [
        f"meta l4proto tcp {flow % OPENING}",
        f"meta l4proto {{ udp, dccp, sctp, udplite }} {flow % EXCHANGE}",
        f"{icmp} type echo-request {echo} goto {side.to}",
        f"meta l4proto {icmp} {icmp} type != echo-request goto {side.to}",
        f"meta l4proto != {{ tcp, udp, dccp, sctp, udplite, {icmp} }} {pair} goto {side.to}",
        f"{_count(OVERFLOW)} drop",
    ]


def _stateful(side: Side, version: int) -> Iterator[str]:
    """Let pass, before any rule is asked, what belongs to a flow or to the wire itself."""
    icmp = "icmp" if version == 4 else "icmpv6"
    errors = "destination-unreachable, time-exceeded, parameter-problem"
    echo = f"{side.pair(version)} . {icmp} id @echoes{version}"
    pair = f"{side.pair(version)} . meta l4proto @pairs{version}"
    yield f"{side.flow(version)} @flows{version} {_count(ESTABLISHED)} goto {side.chain}_known_{version}"
    # later fragments carry no ports; without their first one, which is judged, they are nothing
    tail = "ip frag-off & 0x1fff != 0" if version == 4 else "frag frag-off != 0"
    yield f"{tail} {_count(ESTABLISHED)} goto {side.to}"
    yield f"{icmp} type echo-reply {echo} {_count(ESTABLISHED)} goto {side.to}"
    if version == 6:
        errors += ", packet-too-big"
        discovery = "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"
        yield f"icmpv6 type {{ {discovery} }} goto {side.to}"
    yield f"{icmp} type {{ {errors} }} {_count(RELATED)} goto {side.to}"
    yield f"{pair} {_count(ESTABLISHED)} goto {side.to}"


def _rules(side: Side, version: int, ruleset: Ruleset) -> Iterator[str]:
    for rule in ruleset.rules:
        if rule.direction in side.directions and applies(rule, version):
            verdict = _verdict(side, version, rule.action, rule.deny_with)
            yield f"{_match(rule, version)} {_count(rule.name)} {verdict}".strip()
    yield f"{_count(DEFAULT)} {_verdict(side, version, ruleset.default, ruleset.deny_with)}"


def _verdict(side: Side, version: int, action: str, deny_with: str) -> str:
    if action == "allow":
        return f"goto {side.chain}_admit_{version}"
    return "goto refuse" if deny_with == "reject" else "drop"


def _match(rule: Rule, version: int) -> str:
    ip = "ip" if version == 4 else "ip6"
    parts = [
        _address(f"{ip} saddr", rule.sources, version),
        _address(f"{ip} daddr", rule.destinations, version),
    ]
    if rule.protocol is not None:
        parts.append(f"meta l4proto {rule.protocol}")
    if rule.ports:
        ranges = ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in rule.ports)
        parts.append(f"th dport {{ {ranges} }}")
    return " ".join(part for part in parts if part)


def _address(field: str, networks: tuple[Network, ...], version: int) -> str:
    wanted = [item for item in networks if item.version == version]
    if not wanted or any(item.prefixlen == 0 for item in wanted):
        return ""
    return f"{field} {{ {', '.join(str(item) for item in wanted)} }}"


def parse_counters(listing: str) -> list[Counted]:
    """Return the counters of a table from ``nft -j list table``: rules in order, then what has no rule.

    Raises Invalid where the listing is not nftables JSON.
    """
    try:
        items: list[dict[str, Any]] = json.loads(listing)["nftables"]
        objects = {item["counter"]["name"]: item["counter"] for item in items if "counter" in item}
        rules = [item["rule"] for item in items if "rule" in item]
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"the listing of a firewall's table is not nftables JSON: {error!r}") from None
    used: dict[str, None] = {}
    for rule in rules:
        for expression in rule["expr"]:
            if isinstance(expression.get("counter"), str):
                used.setdefault(expression["counter"])
    fixed = [_counter(name) for name in (DEFAULT, ESTABLISHED, RELATED, OVERFLOW, ETHERTYPES)]
    order = [name for name in used if name not in fixed] + [name for name in fixed if name in used]
    return [
        Counted(objects[name].get("comment", name), objects[name]["packets"], objects[name]["bytes"])
        for name in order
    ]
