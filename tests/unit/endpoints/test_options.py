"""Options of endpoints, from YAML and from variables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from nsmesh.core.errors import Invalid
from nsmesh.endpoints.options import describe_options, prefix_groups, read_options, reading
from nsmesh.endpoints.rules import Ruleset, parse_ruleset
from nsmesh.model.prefix import parse_groups
from nsmesh.model.settings import Seconds


@dataclass(frozen=True)
class Sample:
    listen_port: int = 51820
    """UDP port, from 1 to 65535."""
    quiet: bool = False
    """Say nothing."""
    idle_timeout: Seconds = Seconds(0)
    """Time."""
    names: tuple[str, ...] = ("a", "b")
    labels: dict[str, str] = field(default_factory=dict)
    peer: dict[str, Any] = field(default_factory=dict)
    rules: Ruleset = field(default_factory=Ruleset, metadata=reading(parse_ruleset, "rules"))
    config: str = field(default="", metadata={"variable": "NSM_ACL_CONFIG_PATH"})


def read(options: dict[str, Any] | None = None, **environment: str) -> Sample:
    return read_options(Sample, options, environment, endpoint="fw-1")


def test_nothing_given_gives_the_defaults():
    """Neither YAML nor variables."""
    assert read() == Sample()
    assert read(NSM_NAME="x", PATH="/bin") == Sample()


def test_yaml_and_variables_mean_the_same():
    """The same values, as native YAML and in the text of variables."""
    native = read(
        {
            "listen_port": 5,
            "quiet": True,
            "idle_timeout": "1m30s",
            "names": ["c", "d"],
            "labels": {"app": "x", "tier": 1},
            "peer": {"endpoint": "10.0.0.1:5"},
            "config": "/etc/x",
        }
    )
    variables = read(
        NSM_LISTEN_PORT="5",
        NSM_QUIET="true",
        NSM_IDLE_TIMEOUT="90s",
        NSM_NAMES="c, d",
        NSM_LABELS="app:x,tier:1",
        NSM_PEER='{"endpoint": "10.0.0.1:5"}',
        NSM_ACL_CONFIG_PATH="/etc/x",
    )
    assert native == variables
    assert native.idle_timeout == 90.0


def test_yaml_wins_over_variables():
    """What the document says is nearer to the user than what the process was started with."""
    assert read({"listen_port": 7}, NSM_LISTEN_PORT="8").listen_port == 7


def test_every_mistake_is_told_at_once():
    """Unknown options with the nearest name, wrong values with what is wanted; nested ones line by line."""
    with pytest.raises(Invalid) as caught:
        read(
            {
                "listenport": 5,
                "zzz": 1,
                "quiet": "maybe",
                "labels": "a",
                "rules": [{"action": "alow"}, 5],
            },
            NSM_LISTEN_PORT="five",
            NSM_IDLE_TIMEOUT="",
        )
    assert str(caught.value).splitlines() == [
        "6 mistakes in the options of endpoint fw-1",
        "  option listenport: it does not exist; did you mean listen_port?",
        f"  option zzz: it does not exist; there are {', '.join(Sample.__dataclass_fields__)}",
        "  NSM_LISTEN_PORT: 'five' is not a whole number (wanted: number)",
        "  option quiet: 'maybe' is neither true nor false (wanted: true or false)",
        "  option labels: 'a' is not key:value (wanted: map)",
        "  option rules: the firewall rules: 2 mistakes",
        "    [0].action: 'alow' is none of allow, deny",
        "    [1]: a rule is a mapping, not a number",
    ]


def test_a_field_without_default_must_be_given():
    """And the error says so, rather than a TypeError."""

    @dataclass(frozen=True)
    class Strict:
        key: str

    with pytest.raises(Invalid, match="option key: it is not given, and it has no default"):
        read_options(Strict, None, {}, endpoint="x")
    assert read_options(Strict, {"key": "k"}, {}, endpoint="x").key == "k"


def test_help_comes_from_the_docstrings():
    """Name, variable, kind, default and help of each option, for the reference pages."""
    first, *rest = describe_options(Sample)
    assert (first.field, first.variable, first.kind, first.default, first.help) == (
        "listen_port",
        "NSM_LISTEN_PORT",
        "number",
        "51820",
        "UDP port, from 1 to 65535.",
    )
    assert [item.kind for item in rest] == [
        "true or false", "duration", "list", "map", "mapping", "rules", "text",
    ]  # fmt: skip
    assert rest[-1].variable == "NSM_ACL_CONFIG_PATH"
    assert rest[2].default == "a,b"
    assert rest[0].default == "false"


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        ("169.254.0.0/16", (("169.254.0.0/16",),)),
        ("10.0.0.0/24,fd00::/64", (("10.0.0.0/24",), ("fd00::/64",))),
        (" [ 10.0.0.0/24, 10.1.0.0/24 ] , fd00::/64", (("10.0.0.0/24", "10.1.0.0/24"), ("fd00::/64",))),
        ("[10.0.0.0/24,10.1.0.0/24],[fd00::/64]", (("10.0.0.0/24", "10.1.0.0/24"), ("fd00::/64",))),
        ("10.0.0.0/24,[fd00::/64]", (("10.0.0.0/24",), ("fd00::/64",))),
        (["10.0.0.0/24", "10.1.0.0/24"], (("10.0.0.0/24", "10.1.0.0/24"),)),
        ([["10.0.0.0/24"], ["fd00::/64"]], (("10.0.0.0/24",), ("fd00::/64",))),
        (["10.0.0.0/24", ["fd00::/64"]], (("10.0.0.0/24",), ("fd00::/64",))),
        ("", ()),
        ([], ()),
    ],
)
def test_prefix_groups_are_read_in_every_form(value, groups):
    """The field's own text form, and YAML lists."""
    assert prefix_groups(value) == groups


@pytest.mark.parametrize(
    "text", ["10.0.0.0/24", "10.0.0.7/24,10.1.0.0/24", "[10.0.0.0/24,fd00::/64],fd01::/64"]
)
def test_text_means_in_yaml_what_it_means_to_a_pool(text):
    """There is one reading of the text form, whichever way it comes."""
    assert [list(group) for group in prefix_groups(text)] == parse_groups(text)


@pytest.mark.parametrize(
    "value", [5, "[a", "[]", "10.0.0.0/24,", {"a": 1}, ["a"], [["10.0.0.0"]], [["10.0.0.0/24", 5]]]
)
def test_what_is_no_group_of_prefixes_is_refused(value):
    """With a sentence."""
    with pytest.raises(
        ValueError, match=r"are no prefixes|no list of prefix groups|no CIDR prefix|comma|no prefix length"
    ):
        prefix_groups(value)
