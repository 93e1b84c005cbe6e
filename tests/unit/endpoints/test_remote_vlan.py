"""The endpoint remote-vlan: options as NSM's, and the answer that NSM's forwarders expect."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.chains.settings import RemoteVlanSettings
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.errors import Invalid, MeshError, Refused
from nsmesh.elements.select_mechanism import SelectMechanism
from nsmesh.endpoints.base import TYPES, RemoteVlanEndpoint
from nsmesh.endpoints.options import read_options
from nsmesh.endpoints.remote_vlan import RemoteVlanOptions
from nsmesh.endpoints.run import _entries, _services, make
from nsmesh.model.manifest_records import AT_REGISTRY
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest

FIELD = {
    "NSM_SERVICES": "finance { vlan: 100; via: gw-1; labels: app=books }, raw { via: gw-2 }",
    "NSM_CIDR_PREFIX": "172.10.0.0/24, 2001:db8::/64",
}


def function(environment=FIELD, options=None):
    return RemoteVlanEndpoint(
        "vlans", read_options(RemoteVlanOptions, options, environment, endpoint="vlans")
    )


def ask(made, service="finance", mechanism="VLAN", **labels):
    server = chain(Begin(), *made.elements(), SelectMechanism(made.mechanisms("file:///x")))
    connection = Connection(id="c", network_service=service, payload="ETHERNET", labels=labels)
    connection.context.MTU = 1400
    preferences = [Mechanism(cls="LOCAL", type="KERNEL"), Mechanism(cls="REMOTE", type=mechanism)]
    request = NetworkServiceRequest(connection=connection, mechanism_preferences=preferences)

    async def main():
        async with server.running():
            return await server.request(Call(), request)

    return asyncio.run(main())


def test_the_answer_is_that_of_the_field():
    """The tag in the mechanism, the way as the only label, no MTU, and addresses of networks."""
    answer = ask(function(), app="mine")
    assert (answer.mechanism.type, dict(answer.mechanism.parameters)) == ("VLAN", {"vlan-id": "100"})
    assert dict(answer.labels) == {"via": "gw-1"}
    assert answer.context.MTU == 0
    assert list(answer.context.ip_context.src_ip_addrs) == ["172.10.0.1/24", "2001:db8::1/64"]
    assert not answer.context.ip_context.dst_ip_addrs
    assert ask(function(), "raw").mechanism.parameters["vlan-id"] == "0"


def test_what_is_no_vlan_is_refused():
    """A service that it has not, and a mechanism that is another."""
    with pytest.raises(Refused, match="network service hr is no VLAN of this endpoint"):
        ask(function(), "hr")
    with pytest.raises(MeshError, match="KERNEL: not supported here"):
        ask(function(), mechanism="VXLAN")


def test_it_registers_what_its_options_say():
    """Services by the options alone, each with its own labels; the settings may choose among them."""
    made, settings = function(), RemoteVlanSettings(labels={"zone": "a"})
    services = _services(made, settings)
    finance, raw, entry = _entries(settings, services, "tcp://192.0.2.1:5003")
    assert (finance.name, raw.name, finance.payload) == ("finance", "raw", "ETHERNET")
    assert list(entry.network_service_names) == ["finance", "raw"]
    found = entry.network_service_labels
    assert dict(found["finance"].labels) == {"zone": "a", "app": "books"}
    assert dict(found["raw"].labels) == {"zone": "a"}
    assert list(_services(made, RemoteVlanSettings(service_names=("raw",)))) == ["raw"]
    with pytest.raises(Invalid, match="do not say what hr is"):
        _services(made, RemoteVlanSettings(service_names=("raw", "hr")))
    with pytest.raises(Invalid, match="provides no service"):
        _services(function({}), RemoteVlanSettings())


def test_manifests_have_lists():
    """Services as mappings or texts, networks as a list; the status says what there is."""
    options = {
        "services": [{"name": "finance", "vlan": 100, "via": "gw-1"}, "hr { vlan: 200; via: gw-1 }"],
        "cidr_prefix": ["172.10.0.0/24"],
    }
    made = function({}, options)
    rows = asyncio.run(made.status())["vlans"]
    assert rows == [
        {"service": "finance", "vlan": 100, "via": "gw-1"},
        {"service": "hr", "vlan": 200, "via": "gw-1"},
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"services": ["a {via: g}", "a {via: h}"]}, "service a is there more than once"),
        ({"services": [1]}, "1 is no service"),
        ({"services": ["a"]}, "is not NAME"),
        ({"cidr_prefix": "10.0.0.0/24,10.1.0.0/24"}, "more than one network"),
    ],
)
def test_mistakes_are_told(options, says):
    """With the option's name, before anything is served."""
    with pytest.raises(Invalid, match=says):
        function({}, options)


def test_it_is_made_by_its_type():
    """From the environment of a process; the types that register at the registry are those of manifests."""
    assert make("remote-vlan", RemoteVlanSettings(), FIELD).offers().keys() == {"finance", "raw"}
    assert {kind for kind, cls in TYPES.items() if not cls.by_manager} == AT_REGISTRY
