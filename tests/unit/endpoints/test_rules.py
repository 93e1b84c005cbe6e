"""Firewall rules in YAML."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.endpoints.rules import (
    PROTOCOLS,
    Rule,
    Ruleset,
    applies,
    collapse,
    merge,
    parse_ruleset,
    parse_ruleset_text,
)

PORT = st.integers(1, 65535)


def test_a_full_document_is_read_as_it_stands():
    """Every field arrives, ports and prefixes in one normal form."""
    ruleset = parse_ruleset_text(
        """
        default: allow
        deny_with: drop
        other_ethertypes: allow
        rules:
        - name: web
          action: allow
          protocol: tcp
          ports: [8080, 8000-8010, "8011"]
          from: 10.0.0.0/8
          to: [fd00::/8, 10.1.2.3]
        - {action: deny, protocol: 47, direction: both, deny_with: reject}
        """
    )
    assert ruleset == Ruleset(
        rules=(
            Rule(
                name="web",
                action="allow",
                protocol=6,
                ports=((8000, 8011), (8080, 8080)),
                sources=(ipaddress.ip_network("10.0.0.0/8"),),
                destinations=(ipaddress.ip_network("10.1.2.3/32"), ipaddress.ip_network("fd00::/8")),
                deny_with="drop",
            ),
            Rule(name="rule 2", action="deny", protocol=47, direction="both"),
        ),
        default="allow",
        deny_with="drop",
        other_ethertypes="allow",
    )


@pytest.mark.parametrize("document", [None, {}, []])
def test_nothing_denies_everything(document):
    """Without rules everything is refused."""
    assert parse_ruleset(document) == Ruleset((), "deny", "reject", "deny")


def test_all_mistakes_come_at_once_with_line_and_field():
    """Each mistake has its line, its field and what to write; they come in the order of the text."""
    text = """default: maybe
rulez: 1
rules:
- {name: web, action: alow, protocol: tcp, ports: [80, 9-8, 99999]}
- action: allow
  protocol: tpc
  ports: 80
  from: 10.0.0.1/8
- {action: deny, from: 10.0.0.0/8, to: fd00::/8}
- {name: web, dirction: out}
- 5
"""
    known = ", ".join(PROTOCOLS)
    with pytest.raises(Invalid) as caught:
        parse_ruleset_text(text, source="acl.yaml")
    assert str(caught.value).splitlines() == [
        "acl.yaml: 12 mistakes",
        "  line 1, default: 'maybe' is none of allow, deny",
        "  line 2, rulez: there is no such field; did you mean rules?",
        "  line 4, rules[0].ports: '9-8' is no port from 1 to 65535 and no range such as 8000-8010",
        "  line 4, rules[0].ports: 99999 is no port from 1 to 65535 and no range such as 8000-8010",
        "  line 4, rules[0].action: 'alow' is none of allow, deny",
        f"  line 6, rules[1].protocol: 'tpc' is none of any, {known} and no number from 0 to 255",
        "  line 8, rules[1].from: '10.0.0.1/8' has host bits set; write 10.0.0.0/8",
        "  line 9, rules[2]: it can never match: protocol, from and to share no IP version",
        "  line 10, rules[3].dirction: there is no such field; did you mean direction?",
        "  line 10, rules[3]: it has no action; write action: allow or action: deny",
        "  line 10, rules[3].name: 'web' is the name of rules[0] already",
        "  line 11, rules[4]: a rule is a mapping, not a number",
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"ports": 80}, "ports need a protocol that has them"),
        ({"protocol": "icmp", "ports": 80}, "ports need a protocol that has them"),
        ({"protocol": "tcp", "ports": True}, "True is no port"),
        ({"protocol": ["tcp"]}, "is none of any"),
        ({"protocol": True}, "is none of any"),
        ({"name": 'a"b'}, "without quotes"),
        ({"from": "nowhere"}, "'nowhere' is no IP address and no prefix"),
        ({"protocol": "icmp", "from": "fd00::/8"}, "it can never match"),
    ],
)
def test_a_mistake_in_plain_data_names_the_field(rule, said):
    """Without text there is no line, but still the field."""
    with pytest.raises(Invalid) as caught:
        parse_ruleset([{"action": "allow", **rule}])
    assert "[0]" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["rules: [", "a: b: c", "\t"])
def test_text_that_is_no_yaml_is_refused_in_one_sentence(text):
    """The sentence names the source and the line."""
    with pytest.raises(Invalid, match=r"acl\.yaml is not YAML at line 1"):
        parse_ruleset_text(text, source="acl.yaml")


def test_a_document_that_is_no_ruleset_is_refused():
    """Text, or a mapping in place of the list, is no ruleset."""
    with pytest.raises(Invalid, match="a mapping or a list of rules, not text"):
        parse_ruleset_text("allow")
    with pytest.raises(Invalid, match="line 1, rules: a list of rules is wanted, not a mapping"):
        parse_ruleset_text("rules: {action: allow}")


@given(st.lists(st.tuples(PORT, PORT).map(sorted).map(tuple)))
def test_merged_ranges_hold_the_same_ports_and_never_touch(ranges):
    """The kernel's sets take no overlap, and no port may get lost or in."""
    merged = merge(ranges)
    for (_, last), (first, _) in itertools.pairwise(merged):
        assert last + 1 < first
    edges = {port + step for pair in ranges for port in pair for step in (-1, 0, 1)}
    for port in edges:
        assert any(a <= port <= b for a, b in ranges) == any(a <= port <= b for a, b in merged)


@given(st.lists(st.ip_addresses(), max_size=8), st.integers(0, 32))
def test_collapsed_prefixes_hold_the_same_addresses(addresses, length):
    """Every address stays in, and no two prefixes overlap."""
    collapsed = collapse(ipaddress.ip_network((address, length), strict=False) for address in addresses)
    for address in addresses:
        assert sum(address in network for network in collapsed) == 1


def test_a_rule_applies_to_the_ip_versions_that_it_can_match():
    """By the protocol and by both lists of prefixes."""
    four = parse_ruleset([{"action": "allow", "from": "10.0.0.0/8"}]).rules[0]
    both = parse_ruleset([{"action": "allow", "from": ["10.0.0.0/8", "fd00::/8"]}]).rules[0]
    echo = parse_ruleset([{"action": "allow", "protocol": "icmpv6"}]).rules[0]
    assert [applies(rule, 4) for rule in (four, both, echo)] == [True, True, False]
    assert [applies(rule, 6) for rule in (four, both, echo)] == [False, True, True]
