"""Which mechanisms a forwarder has."""

import pytest

from nsmesh.chains import tunnels
from nsmesh.chains.settings import ForwarderSettings
from nsmesh.core.errors import Invalid
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.noop import Noop


@pytest.fixture
def kernel(monkeypatch):
    """Return what the node lacks, by type; empty at first."""
    missing = {}
    monkeypatch.setattr(tunnels, "ipv6_beside", lambda ip: ip if ":" in ip else "")
    monkeypatch.setattr(tunnels, "lacks", lambda kind: missing.get(kind, ""))
    return missing


def types(**settings):
    return [plugin.type for plugin in tunnels.mechanisms_of(ForwarderSettings(**settings))]


def test_without_a_tunnel_address_wires_are_local():
    """Nothing is offered to other nodes, nothing is tried, and nothing is missing."""
    assert types() == ["KERNEL", "MEMIF"]
    assert tunnels.lacking(ForwarderSettings()) == {}


def test_what_the_kernel_lacks_is_not_offered(kernel):
    """It is tried once, at the start; the reason is kept."""
    kernel.update(GENEVE="this kernel has no geneve devices", GRE="nor this")
    assert types(tunnel_ip="2001:db8::1") == ["KERNEL", "VXLAN", "SRV6", "WIREGUARD", "MEMIF"]
    missing = tunnels.lacking(ForwarderSettings(tunnel_ip="2001:db8::1"))
    assert missing == {"GENEVE": "this kernel has no geneve devices", "GRE": "nor this"}
    kernel.update(VXLAN="no", SRV6="no", WIREGUARD="no")
    assert types(tunnel_ip="2001:db8::1") == ["KERNEL", "MEMIF"]


def test_the_usual_order_is_that_of_every_node(kernel):
    """Cheap ones first; segment routing needs IPv6 and says so."""
    assert types(tunnel_ip="192.0.2.1") == ["KERNEL", "VXLAN", "GENEVE", "GRE", "WIREGUARD", "MEMIF"]
    missing = tunnels.lacking(ForwarderSettings(tunnel_ip="192.0.2.1"))
    why = "it needs an IPv6 address, and the link of NSM_TUNNEL_IP, 192.0.2.1, has none"
    assert missing == {"SRV6": why}


def test_priority_is_by_type(kernel):
    """What is named comes first, in any case of letters; types that are not here are passed over."""
    assert types(tunnel_ip="192.0.2.1", mechanism_priority=("wireguard",))[0] == "WIREGUARD"
    found = tunnels.by_priority([Kernel(), Noop()], ["WIREGUARD", "NOOP"])
    assert [plugin.type for plugin in found] == ["NOOP", "KERNEL"]


def test_what_shall_not_be_used_is_not(kernel):
    """NSM_MECHANISMS leaves the named ones alone, and a misspelt one ends the start."""
    assert types(tunnel_ip="192.0.2.1", mechanisms=("wireguard",)) == ["KERNEL", "WIREGUARD", "MEMIF"]
    missing = tunnels.lacking(ForwarderSettings(tunnel_ip="192.0.2.1", mechanisms=("WIREGUARD",)))
    assert missing["VXLAN"] == "NSM_MECHANISMS leaves it out"
    with pytest.raises(Invalid, match="did you mean WIREGUARD"):
        types(tunnel_ip="192.0.2.1", mechanisms=("WIREGARD",))


def test_a_tunnel_address_that_is_none_is_refused(kernel):
    """Before anything is served."""
    with pytest.raises(Invalid, match="'node-1' is no IP address"):
        types(tunnel_ip="node-1")


def test_a_registration_says_what_there_is():
    """As labels, which any reader of the registry sees; with the reasons for what there is not."""
    labels = tunnels.described({"p2p": "true"}, [Kernel(), Noop()])
    assert labels == {"p2p": "true", "mechanisms": "KERNEL.NOOP"}
    labels = tunnels.described({}, [Kernel()], {"GRE": "this kernel has none", "SRV6": "nor this"})
    assert labels == {"mechanisms": "KERNEL", "lacks": "GRE: this kernel has none; SRV6: nor this"}
