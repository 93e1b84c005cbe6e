"""Who is asked for a name."""

import pytest

from nsmesh.model.dns_choice import Choice
from nsmesh.model.messages import DNSConfig

CLUSTER = "nameserver 10.96.0.10\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\n"
OWN = ("10.96.0.10",)


def config(servers, *domains):
    return DNSConfig(dns_server_ips=servers.split(), search_domains=domains)


RED, BLUE = config("172.16.0.53 172.16.0.54", "red.example"), config("172.17.0.53", "deep.red.example")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("web.red.example", ["172.16.0.53", "172.16.0.54"]),
        ("red.example", ["172.16.0.53", "172.16.0.54"]),
        ("WEB.Red.Example.", ["172.16.0.53", "172.16.0.54"]),
        ("web.deep.red.example", ["172.17.0.53"]),
        ("infrared.example", [*OWN]),
        ("example", [*OWN]),
        ("kubernetes.default.svc.cluster.local", [*OWN]),
        ("www.example.org", [*OWN]),
        ("", [*OWN]),
    ],
)
def test_the_longest_domain_decides(name, asked):
    """Whole labels count; what no wire has named is none of its business."""
    assert Choice.of(CLUSTER, [RED, BLUE], "127.0.0.1").groups(name) == [tuple(asked)]


def test_a_wire_takes_no_name_away():
    """A domain that the pod has itself stays its own, whatever an endpoint says."""
    choice = Choice.of(CLUSTER, [config("172.16.0.53", "svc.cluster.local", "Cluster.Local.")], "127.0.0.1")
    assert choice.groups("db.prod.svc.cluster.local") == [OWN]
    assert choice.groups("x.cluster.local") == [OWN]


def test_a_wire_may_have_a_domain_below_one_of_the_pods():
    """As a part of a company's network that the pod's node is in."""
    choice = Choice.of("nameserver 10.0.0.1\nsearch example\n", [RED], "127.0.0.1")
    assert choice.groups("web.red.example") == [("172.16.0.53", "172.16.0.54")]
    assert choice.groups("web.example") == [("10.0.0.1",)]


def test_servers_without_a_domain_are_asked_last():
    """For what the original servers do not know, and never for the names of the cluster."""
    choice = Choice.of(CLUSTER, [RED, config("172.18.0.53")], "127.0.0.1")
    assert choice.groups("www.example.org") == [OWN, ("172.18.0.53",)]
    assert choice.groups("www.example.org.svc.cluster.local") == [OWN]
    assert choice.groups("web.red.example") == [("172.16.0.53", "172.16.0.54")]


def test_names_of_addresses_are_asked_of_all():
    """They are in no domain of a wire."""
    choice = Choice.of(CLUSTER, [RED, BLUE], "127.0.0.1")
    for name in ("9.0.16.172.in-addr.arpa", "1.0.0.0.ip6.arpa"):
        assert choice.groups(name) == [OWN, ("172.16.0.53", "172.16.0.54"), ("172.17.0.53",)]


def test_two_wires_with_one_domain_are_both_asked():
    """The second where the first knows no such name; the same servers once."""
    other = config("172.19.0.53", "red.example")
    choice = Choice.of(CLUSTER, [RED, other, RED], "127.0.0.1")
    assert choice.groups("web.red.example") == [("172.16.0.53", "172.16.0.54"), ("172.19.0.53",)]


@pytest.mark.parametrize(
    "server", ["127.0.0.1", "::1", "0.0.0.0", "224.0.0.251", "no address", "10.0.0.1 -x"]
)
def test_a_wire_cannot_name_what_is_no_other_host(server):
    """Neither the asker himself, nor what else listens in the pod."""
    wire = DNSConfig(dns_server_ips=[server], search_domains=["red.example"])
    assert Choice.of(CLUSTER, [wire], "127.0.0.1").groups("web.red.example") == [OWN]


def test_the_asker_is_not_asked():
    """A file that names it already would have it ask itself; another server of the pod's own is the pod's."""
    choice = Choice.of("nameserver 127.0.0.1\nnameserver 127.0.0.11\n", [], "127.0.0.1")
    assert choice.groups("www.example.org") == [("127.0.0.11",)]


def test_without_any_server_nobody_is_asked():
    """An empty file is no error."""
    assert Choice.of("", [], "127.0.0.1").groups("www.example.org") == []
    assert Choice().groups("www.example.org") == []
