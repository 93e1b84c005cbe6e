"""Firewall rules: the records, and their YAML form. Pure; see docs/reference/endpoints/firewall.md.

All mistakes of a document are reported at once, each with its line (where the text is known) and field.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from nsmesh.core.errors import Invalid
from nsmesh.model.names import nearest

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
PROTOCOLS = {
    "icmp": ICMP, "tcp": TCP, "udp": UDP, "dccp": DCCP, "icmpv6": ICMPV6, "sctp": SCTP, "udplite": UDPLITE,
}  # fmt: skip
"""Protocols that have a name in the rules."""
WITH_PORTS = (TCP, UDP, DCCP, SCTP, UDPLITE)
"""Protocols whose header begins with source and destination port."""

ACTIONS = ("allow", "deny")
REFUSALS = ("reject", "drop")
DIRECTIONS = ("in", "out", "both")

_RULE_FIELDS = ("name", "action", "protocol", "ports", "from", "to", "direction", "deny_with")
_SET_FIELDS = ("rules", "default", "deny_with", "other_ethertypes")
_RANGE = re.compile(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?")
_NAME_LENGTH = 60
_UNREADABLE = -1
_UNPRINTABLE = re.compile(r'[\x00-\x1f\x7f"\\]')


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, matched against the first packet of a flow.

    ``protocol`` an IP protocol number or None (any); ``ports`` inclusive ranges of the destination port, none
    means all; ``sources`` and ``destinations`` prefixes, none means all. ``direction``: ``in`` is from the
    client towards the service. ``deny_with`` ``reject`` or ``drop``.
    """

    name: str
    action: str
    protocol: int | None = None
    ports: tuple[tuple[int, int], ...] = ()
    sources: tuple[Network, ...] = ()
    destinations: tuple[Network, ...] = ()
    direction: str = "in"
    deny_with: str = "reject"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Rules in order, first match wins, and what happens to everything else.

    ``default`` and ``other_ethertypes`` (neither IP nor ARP) are ``allow`` or ``deny``.
    """

    rules: tuple[Rule, ...] = ()
    default: str = "deny"
    deny_with: str = "reject"
    other_ethertypes: str = "deny"


def parse_ruleset(document: object, *, source: str = "the firewall rules") -> Ruleset:
    """Read a ruleset from plain data: a mapping with ``rules``, or the list of rules alone.

    Raises Invalid with every mistake.
    """
    return _Reader(source, {}).ruleset(document)


def parse_ruleset_text(text: str, *, source: str = "the firewall rules") -> Ruleset:
    """Read a ruleset from YAML text; like :func:`parse_ruleset`, with line numbers in what it raises."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or "it cannot be read"
        raise Invalid(f"{source} is not YAML{at}: {why}", remedy="correct the text") from None
    lines: dict[str, int] = {}
    if node is not None:
        _note_lines(node, "", lines)
    return _Reader(source, lines).ruleset(document)


def _note_lines(node: yaml.Node, path: str, lines: dict[str, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            _note_lines(value, f"{path}[{position}]", lines)


class _Reader:
    """Reads one document and collects what is wrong with it."""

    def __init__(self, source: str, lines: Mapping[str, int]) -> None:
        self.source = source
        self.lines = lines
        self.wrong: list[tuple[int, str]] = []

    def complain(self, path: str, what: str) -> None:
        line = self.lines.get(path) or self.lines.get(path.rpartition(".")[0]) or 0
        where = ", ".join(part for part in (f"line {line}" if line else "", path) if part)
        self.wrong.append((line, f"{where}: {what}" if where else what))

    def ruleset(self, document: object) -> Ruleset:
        prefix = "rules"
        if isinstance(document, list):
            document, prefix = {"rules": document}, ""
        if document is None:
            document = {}
        ruleset = Ruleset()
        if not isinstance(document, Mapping):
            self.complain("", f"a ruleset is a mapping or a list of rules, not {_kind(document)}")
        else:
            self.unknown("", document, _SET_FIELDS)
            deny_with = self.choice(document, "", "deny_with", REFUSALS, "reject")
            ruleset = Ruleset(
                rules=self.rules(document.get("rules"), prefix, deny_with),
                default=self.choice(document, "", "default", ACTIONS, "deny"),
                deny_with=deny_with,
                other_ethertypes=self.choice(document, "", "other_ethertypes", ACTIONS, "deny"),
            )
        if self.wrong:
            count = "one mistake" if len(self.wrong) == 1 else f"{len(self.wrong)} mistakes"
            raise Invalid(
                f"{self.source}: {count}\n"
                + "\n".join(f"  {what}" for _, what in sorted(self.wrong, key=lambda item: item[0]))
            )
        return ruleset

    def rules(self, value: object, path: str, deny_with: str) -> tuple[Rule, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self.complain(path, f"a list of rules is wanted, not {_kind(value)}")
            return ()
        found: list[Rule] = []
        names: dict[str, str] = {}
        for position, item in enumerate(value):
            at = f"{path}[{position}]"
            if not isinstance(item, Mapping):
                self.complain(at, f"a rule is a mapping, not {_kind(item)}")
                continue
            rule = self.rule(item, at, deny_with, position)
            if rule.name in names:
                self.complain(f"{at}.name", f"{rule.name!r} is the name of {names[rule.name]} already")
            names[rule.name] = at
            found.append(rule)
        return tuple(found)

    def rule(self, item: Mapping[str, Any], at: str, deny_with: str, position: int) -> Rule:
        self.unknown(at, item, _RULE_FIELDS)
        if "action" not in item:
            self.complain(at, "it has no action; write action: allow or action: deny")
        protocol = self.protocol(item.get("protocol", "any"), f"{at}.protocol")
        ports = self.ports(item.get("ports"), f"{at}.ports", protocol)
        sources = self.prefixes(item.get("from"), f"{at}.from")
        destinations = self.prefixes(item.get("to"), f"{at}.to")
        rule = Rule(
            name=self.name(item.get("name"), f"{at}.name", position),
            action=self.choice(item, at, "action", ACTIONS, "deny"),
            protocol=protocol,
            ports=ports,
            sources=sources,
            destinations=destinations,
            direction=self.choice(item, at, "direction", DIRECTIONS, "in"),
            deny_with=self.choice(item, at, "deny_with", REFUSALS, deny_with),
        )
        if not any(applies(rule, version) for version in (4, 6)):
            self.complain(at, "it can never match: protocol, from and to share no IP version")
        return rule

    def unknown(self, at: str, item: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in item:
            if key in known:
                continue
            near = nearest(str(key), known)
            hint = f"; did you mean {near}?" if near else f"; known are {', '.join(known)}"
            self.complain(f"{at}.{key}" if at else str(key), f"there is no such field{hint}")

    def choice(self, item: Mapping[str, Any], at: str, key: str, allowed: tuple[str, ...], usual: str) -> str:
        value = item.get(key, usual)
        if value in allowed:
            return str(value)
        self.complain(f"{at}.{key}" if at else key, f"{value!r} is none of {', '.join(allowed)}")
        return usual

    def name(self, value: object, at: str, position: int) -> str:
        if value is None:
            return f"rule {position + 1}"
        text = str(value)
        if not text or len(text) > _NAME_LENGTH or _UNPRINTABLE.search(text):
            self.complain(
                at, f"a name has 1 to {_NAME_LENGTH} characters, without quotes, backslashes and line ends"
            )
        return text

    def protocol(self, value: object, at: str) -> int | None:
        if value is None or value == "any":
            return None
        if isinstance(value, str) and value.lower() in PROTOCOLS:
            return PROTOCOLS[value.lower()]
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
            return value
        self.complain(at, f"{value!r} is none of any, {', '.join(PROTOCOLS)} and no number from 0 to 255")
        return _UNREADABLE

    def ports(self, value: object, at: str, protocol: int | None) -> tuple[tuple[int, int], ...]:
        if value is None:
            return ()
        if protocol not in WITH_PORTS and protocol != _UNREADABLE:
            self.complain(at, "ports need a protocol that has them; write protocol: tcp or protocol: udp")
        found = []
        for item in value if isinstance(value, list) else [value]:
            match = _RANGE.fullmatch(str(item)) if not isinstance(item, bool) else None
            first = int(match[1]) if match else 0
            last = int(match[2] or match[1]) if match else 0
            if 1 <= first <= last <= 65535:
                found.append((first, last))
            else:
                self.complain(at, f"{item!r} is no port from 1 to 65535 and no range such as 8000-8010")
        return merge(found)

    def prefixes(self, value: object, at: str) -> tuple[Network, ...]:
        found: list[Network] = []
        for item in value if isinstance(value, list) else [] if value is None else [value]:
            try:
                found.append(ipaddress.ip_network(str(item)))
            except ValueError:
                self.complain(at, _prefix_mistake(str(item)))
        return collapse(found)


def _prefix_mistake(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is no IP address and no prefix such as 10.1.0.0/16"
    return f"{text!r} has host bits set; write {network}"


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", int: "a number", bool: "true or false"}
    return names.get(type(value), type(value).__name__)


def merge(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the same ports as sorted ranges that do not touch; the kernel's sets take no overlap."""
    out: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return tuple(out)


def collapse(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return the same addresses as prefixes that do not overlap, IPv4 first."""
    networks = list(networks)
    four = [item for item in networks if isinstance(item, ipaddress.IPv4Network)]
    six = [item for item in networks if isinstance(item, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))


def applies(rule: Rule, version: int) -> bool:
    """Say whether ``rule`` can match packets of IP ``version`` 4 or 6."""
    if rule.protocol == (ICMPV6 if version == 4 else ICMP):
        return False
    return all(
        not networks or any(network.version == version for network in networks)
        for networks in (rule.sources, rule.destinations)
    )
