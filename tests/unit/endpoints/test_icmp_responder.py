"""Options of the ICMP responder, and what they put into its chain."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.errors import Invalid
from nsmesh.endpoints.icmp_responder import ResponderOptions, read_policies
from nsmesh.endpoints.options import describe_options, read_options
from nsmesh.model.messages import Connection, NetworkServiceRequest


def read(**environment: str) -> ResponderOptions:
    return read_options(ResponderOptions, None, environment, endpoint="nse")


def test_the_variables_of_the_field_are_understood(tmp_path: Path):
    """Each by its name and in its form; a Request gets what they say."""
    policies = tmp_path / "pbr.yaml"
    policies.write_text(
        "- from: 172.16.2.201/24\n  proto: 6\n  dstport: 6666\n"
        "  routes:\n  - prefix: 0.0.0.0/0\n    nexthop: 172.16.2.200\n"
    )
    options = read(
        NSM_CIDR_PREFIX="[10.0.0.0/24],[fd00::/64]",
        NSM_IPAM_POLICY="strict",
        NSM_DNS_CONFIGS='[{"dns_server_ips": ["10.0.0.53"], "search_domains": ["corp"]}]',
        NSM_IDLE_TIMEOUT="10m",
        NSM_PBR_CONFIG_PATH=str(policies),
    )
    assert options.idle_timeout == 600
    server = chain(Begin(), *options.elements())
    answer = asyncio.run(server.request(Call(), NetworkServiceRequest(connection=Connection(id="c"))))
    ip = answer.context.ip_context
    assert list(ip.dst_ip_addrs) == ["10.0.0.0/32", "fd00::/128"]
    assert list(ip.src_ip_addrs) == ["10.0.0.1/32", "fd00::1/128", "172.16.2.201/24"]
    assert [(policy.proto, policy.dst_port) for policy in ip.policies] == [("6", "6666")]
    assert ip.policies[0].routes[0].nextHop == "172.16.2.200"
    assert list(answer.context.dns_context.configs[0].search_domains) == ["corp"]


def test_nothing_set_means_the_defaults_of_the_field(tmp_path: Path):
    """One link-local group, polite, no name servers, never idle."""
    options = read()
    assert (options.cidr_prefix, options.ipam_policy, options.idle_timeout) == (
        (("169.254.0.0/16",),),
        "polite",
        0,
    )
    assert read_policies(tmp_path / "none.yaml") == ()
    assert all(item.help for item in describe_options(ResponderOptions))


def test_wrong_options_are_told_together():
    """Each with its variable."""
    with pytest.raises(Invalid) as caught:
        read(NSM_IPAM_POLICY="rude", NSM_DNS_CONFIGS='{"a": 1}', NSM_CIDR_PREFIX="[a")
    text = str(caught.value)
    assert text.startswith("3 mistakes in the options of endpoint nse")
    assert "NSM_IPAM_POLICY: 'rude' is neither polite nor strict" in text
    assert "NSM_DNS_CONFIGS: {'a': 1} is not a list" in text
    assert "NSM_CIDR_PREFIX" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b", "holds no list"),
        ("- x", "item 1: a policy route is a mapping"),
        ("- from: 10.0.0.0/8\n- port: 5", "item 2: a policy route is a mapping"),
        ("- from: 10.0.0.0/8\n  routes: [10.0.0.0/8]", "item 1: a route is a mapping"),
        ("[", "cannot be read"),
    ],
)
def test_a_wrong_policy_file_is_refused_with_the_item(tmp_path: Path, text, said):
    """And with the file."""
    path = tmp_path / "pbr.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=said) as caught:
        read_policies(path)
    assert str(path) in str(caught.value)
