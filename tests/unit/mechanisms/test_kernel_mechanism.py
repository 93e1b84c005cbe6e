"""The KERNEL mechanism."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.mechanisms.kernel import OWN_NAMESPACE, Kernel, namespace_path
from nsmesh.model.messages import Connection, Mechanism
from nsmesh.model.names import interface_problem
from nsmesh.model.wiring import Side
from nsmesh.model.wiring_texts import WiringError

CONNECTION = Connection(id="fwd-1", network_service="icmp-responder")


def kernel(**parameters):
    return Mechanism(cls="LOCAL", type="KERNEL", parameters=parameters)


def test_a_forwarder_proposes_a_name():
    """The endpoint brings the namespace; the name is the same after a restart, so the wire is too."""
    offered = Kernel().offer(CONNECTION)
    assert list(offered.parameters) == ["name"]
    assert offered.parameters["name"].startswith("icmp-respo-")
    assert offered == Kernel().offer(CONNECTION)


def test_a_client_offers_its_namespace_and_a_name():
    """A name that is not asked for is generated from the service, and is the same each time."""
    offered = Kernel(inode_url="file:///run/netns/app").offer(CONNECTION)
    assert offered.parameters["inodeURL"] == "file:///run/netns/app"
    assert offered.parameters["name"].startswith("icmp-respo-")
    assert len(offered.parameters["name"]) == 15
    assert offered == Kernel(inode_url="file:///run/netns/app").offer(CONNECTION)
    named = Kernel(inode_url="file:///run/netns/app", name="nsm-1").offer(CONNECTION)
    assert named.parameters["name"] == "nsm-1"


def test_a_forwarder_accepts_what_names_a_namespace():
    """What the client asked for is kept; only an absent name is filled in."""
    offered = kernel(inodeURL="inode://4/26", name="nsm-1", extra="kept")
    assert Kernel().accept(offered, CONNECTION) == offered
    filled = Kernel().accept(kernel(inodeURL="file:///run/netns/x"), CONNECTION)
    assert filled.parameters["name"].startswith("icmp-respo-")


def test_an_endpoint_answers_with_its_own_namespace():
    """Whatever namespace is asked for, also by a refresh: the endpoint's own is answered."""
    endpoint = Kernel(inode_url=OWN_NAMESPACE)
    first = endpoint.accept(kernel(supportsVlan="true"), CONNECTION)
    assert first.parameters["inodeURL"] == OWN_NAMESPACE
    again = kernel(**{**first.parameters, "inodeURL": "file:///proc/9/fd/7"})
    assert endpoint.accept(again, CONNECTION) == first


def test_a_function_in_the_middle_gets_two_names():
    """Both halves of one process work under one connection id, in one namespace."""
    both = Kernel(inode_url="file:///run/netns/fw")
    served, asked = both.accept(kernel(), CONNECTION), both.offer(CONNECTION)
    assert served.parameters["name"] != asked.parameters["name"]


@given(
    service=st.text(max_size=30),
    connection_id=st.text(max_size=40),
    parameters=st.dictionaries(st.sampled_from(["supportsVlan", "x"]), st.text(max_size=5)),
)
def test_accepting_again_changes_nothing(service, connection_id, parameters):
    """``accept`` is idempotent, and the kernel takes every generated name."""
    made = Connection(id=connection_id, network_service=service)
    first = Kernel(inode_url=OWN_NAMESPACE).accept(kernel(**parameters), made)
    assert Kernel(inode_url=OWN_NAMESPACE).accept(first, made) == first
    assert interface_problem(first.parameters["name"]) == ""


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "names no network namespace"),
        ({"inodeURL": "tcp://1.2.3.4", "name": "a"}, "no URL of a network namespace"),
        ({"inodeURL": "file:///n", "name": "sixteen-letters-x"}, "15 at most"),
        ({"inodeURL": "file:///n", "name": "a/b"}, "'/'"),
    ],
)
def test_refused_preferences_are_explained(parameters, said):
    """A preference that cannot work is refused with the parameter that is wrong."""
    with pytest.raises(Invalid) as caught:
        Kernel().accept(kernel(**parameters), CONNECTION)
    assert said in str(caught.value)


def test_a_namespace_url_becomes_a_path():
    """File URLs are decoded; all that would be another namespace here than there is refused."""
    assert namespace_path("file:///run/netns/a%20b") == "/run/netns/a b"
    assert namespace_path("file:///proc/self/fd/7") == "/proc/self/fd/7"
    for url in (
        "inode://4/26",
        "file:///proc/self/ns/net",
        OWN_NAMESPACE,
        "file://host/run/netns/x",
        "file:run/netns/x",
        "",
    ):
        with pytest.raises(Invalid):
            namespace_path(url)


def test_the_port_says_where():
    """Namespace and name come from the mechanism, through the resolver."""
    mechanism = kernel(inodeURL="inode://4/26", name="nsm-1")
    port = Kernel(resolve=lambda url: f"/fd/{url[-2:]}").port(CONNECTION, mechanism, Side.CLIENT)
    assert (port.netns, port.name, port.numbered) == ("/fd/26", "nsm-1", True)


@pytest.mark.parametrize(
    ("parameters", "numbered"),
    [
        ({}, True),
        ({"vlan": "0"}, True),
        ({"vlan": "7"}, False),
        ({"unnumbered": "true"}, False),
        ({"unnumbered": "false"}, True),
    ],
)
def test_vlans_and_transparent_functions_are_unnumbered(parameters, numbered):
    """``vlan`` above 0 and ``unnumbered`` leave IP out of that side."""
    mechanism = kernel(inodeURL="file:///n", name="nsm-1", **parameters)
    assert Kernel().port(CONNECTION, mechanism, Side.ENDPOINT).numbered is numbered


def test_a_wrong_vlan_is_refused():
    """A VLAN is a number of 12 bits."""
    for text in ("4096", "-1", "x"):
        with pytest.raises(WiringError):
            Kernel().port(CONNECTION, kernel(inodeURL="file:///n", name="a", vlan=text), Side.CLIENT)


def test_unnumbered_is_said_in_offer_and_answer():
    """Both the client and the server half of a transparent function say so."""
    plugin = Kernel(inode_url="file:///n", unnumbered=True)
    assert plugin.offer(CONNECTION).parameters["unnumbered"] == "true"
    assert plugin.accept(kernel(), CONNECTION).parameters["unnumbered"] == "true"


def test_described_by_its_interface():
    """The metric names the interface."""
    assert Kernel().describe(kernel(name="nsm-1")) == "KERNEL/nsm-1"
