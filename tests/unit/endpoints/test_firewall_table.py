"""A ruleset as an nftables program."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.endpoints.firewall_table import Counted, parse_counters, program, removal, table_name
from nsmesh.endpoints.rules import parse_ruleset

RULES = parse_ruleset(
    {
        "rules": [
            {"name": "web", "action": "allow", "protocol": "tcp", "ports": "8000-8010", "from": "10.0.0.0/8"},
            {"name": "back", "action": "deny", "protocol": "udp", "direction": "out", "deny_with": "drop"},
            {"name": "all", "action": "deny", "from": ["0.0.0.0/0", "fd00::/8"], "direction": "both"},
        ]
    }
)


def rules_of(text: str, chain: str) -> list[str]:
    return re.findall(rf"^add rule netdev t {chain} (.*)$", text, re.MULTILINE)


def test_rules_stand_in_order_in_their_directions_and_ip_versions():
    """A rule is in the chain of its direction and of the IP versions that it can match."""
    text = program("t", "in", "out", RULES, rewire=True)
    four, six = rules_of(text, "from_client_4")[-3:], rules_of(text, "from_client_6")[-2:]
    assert re.fullmatch(
        r"ip saddr \{ 10\.0\.0\.0/8 \} meta l4proto 6 th dport \{ 8000-8010 \} counter name \w+ "
        r"goto from_client_admit_4",
        four[0],
    )
    assert re.fullmatch(r"counter name \w+ goto refuse", four[1])
    assert re.fullmatch(r"ip6 saddr \{ fd00::/8 \} counter name \w+ goto refuse", six[0])
    assert re.fullmatch(r"counter name \w+ goto refuse", six[1])
    back = rules_of(text, "from_service_4")[-3]
    assert re.fullmatch(r"meta l4proto 17 counter name \w+ drop", back)


def test_flows_have_one_key_in_both_directions():
    """What the client's side writes is what the service's side looks up: the client's address comes first."""
    text = program("t", "in", "out", RULES, rewire=True)
    assert "@flows4 { ip saddr . ip daddr . meta l4proto . th sport . th dport" in "\n".join(
        rules_of(text, "from_client_admit_4")
    )
    assert rules_of(text, "from_service_4")[0].startswith(
        "ip daddr . ip saddr . meta l4proto . th dport . th sport @flows4"
    )


def test_a_reload_touches_no_hook_and_no_set():
    """Without rewire the base chains, the sets' contents and the counters stay as they are."""
    text = program("t", "in", "out", RULES, rewire=False)
    assert "hook" not in text
    assert "fwd" not in text
    assert not re.search(r"^(delete|flush (set|table))", text, re.MULTILINE)
    assert not re.search(
        r"chain netdev t (from_client|from_service|to_client|to_service)$", text, re.MULTILINE
    )


def test_without_reject_everything_denied_is_dropped():
    """For kernels that cannot answer from an ingress hook."""
    assert "reject" in program("t", "in", "out", RULES, rewire=True)
    assert "reject" not in program("t", "in", "out", RULES, rewire=True, can_reject=False)


@pytest.mark.parametrize("name", ["", 'a"b', "a b", "a;b", "x" * 16, "a\nb", "a{", "a/b"])
def test_a_name_that_could_break_the_program_is_refused(name):
    """Interface names come from a peer; none may end up as a command."""
    with pytest.raises(Invalid, match="cannot stand in a firewall's table"):
        program("t", "in", name, RULES, rewire=True)


@given(st.text())
def test_table_names_are_short_plain_and_stable(wire_id):
    """Whatever the connection's id is, its table's name is one that nftables takes."""
    assert re.fullmatch(r"nsm_[0-9a-f]{16}", table_name(wire_id))
    assert table_name(wire_id) == table_name(wire_id)
    assert removal(table_name(wire_id)).count(table_name(wire_id)) == 2


def test_counters_come_in_the_order_of_the_rules():
    """Rules first, in order and once each, then what has no rule; counters of old rules are left out."""
    names = re.findall(
        r'^add counter netdev t (\w+) \{ comment "(.*)"; \}',
        program("t", "i", "o", RULES, rewire=True),
        re.MULTILINE,
    )
    known = {comment: name for name, comment in names}
    items = [{"counter": {"name": name, "comment": text, "packets": 1, "bytes": 2}} for name, text in names]
    items.append({"counter": {"name": "c_old", "comment": "old", "packets": 9, "bytes": 9}})
    items += [
        {"rule": {"expr": [{"match": {}}, {"counter": known[comment]}, {"drop": None}]}}
        for comment in ("established", "web", "back", "web", "default")
    ]
    found = parse_counters(json.dumps({"nftables": [{"metainfo": {}}, *items]}))
    assert [item.name for item in found] == ["web", "back", "default", "established"]
    assert found[0] == Counted("web", 1, 2)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables": [{"counter": {}}]}'])
def test_a_listing_that_is_none_is_refused(text):
    """A broken listing is one error of ours, not a KeyError."""
    with pytest.raises(Invalid, match="not nftables JSON"):
        parse_counters(text)
