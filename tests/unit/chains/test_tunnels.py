"""Which mechanisms a forwarder has."""

import pytest

from nsmesh.chains import tunnels
from nsmesh.chains.settings import ForwarderSettings
from nsmesh.core.errors import Invalid
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.noop import Noop


def types(**settings):
    return [plugin.type for plugin in tunnels.mechanisms_of(ForwarderSettings(**settings))]


def test_without_a_tunnel_address_wires_are_local():
    """Nothing is offered to other nodes, and nothing is tried."""
    assert types() == ["KERNEL"]


def test_what_the_kernel_lacks_is_not_offered(monkeypatch):
    """It is tried once, at the start."""
    monkeypatch.setattr(tunnels, "lacks_vxlan", lambda: "it has no VXLAN")
    assert types(tunnel_ip="192.0.2.1") == ["KERNEL"]
    monkeypatch.setattr(tunnels, "lacks_vxlan", lambda: "")
    assert types(tunnel_ip="192.0.2.1") == ["KERNEL", "VXLAN"]


def test_priority_is_by_type(monkeypatch):
    """What is named comes first, in any case of letters; types that are not here are passed over."""
    monkeypatch.setattr(tunnels, "lacks_vxlan", lambda: "")
    assert types(tunnel_ip="192.0.2.1", mechanism_priority=("vxlan",)) == ["VXLAN", "KERNEL"]
    found = tunnels.by_priority([Kernel(), Noop()], ["WIREGUARD", "NOOP"])
    assert [plugin.type for plugin in found] == ["NOOP", "KERNEL"]


def test_a_tunnel_address_that_is_none_is_refused(monkeypatch):
    """Before anything is served."""
    monkeypatch.setattr(tunnels, "lacks_vxlan", lambda: "")
    with pytest.raises(Invalid, match="'node-1' is no IP address"):
        types(tunnel_ip="node-1")


def test_a_registration_says_what_there_is():
    """As a label, which any reader of the registry sees."""
    labels = tunnels.described({"p2p": "true"}, [Kernel(), Noop()])
    assert labels == {"p2p": "true", "mechanisms": "KERNEL.NOOP"}
