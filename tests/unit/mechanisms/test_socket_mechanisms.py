"""The mechanisms MEMIF and VHOST_USER."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid, Refused
from nsmesh.core.mechanism import HandingPlugin
from nsmesh.datapath.wirestate import check_wire
from nsmesh.mechanisms import load
from nsmesh.mechanisms.memif import Memif
from nsmesh.mechanisms.vhost_user import VhostUser
from nsmesh.model.messages import Connection, Mechanism
from nsmesh.model.sockets import PATH_LIMIT, socket_problem
from nsmesh.model.wire import KernelPort, MemifPort
from nsmesh.model.wiring import Side, cross_connect

MADE = Connection(id="c-1")
NETNS = "file:///run/netns/app"


def memif(**parameters):
    return Mechanism(cls="LOCAL", type="MEMIF", parameters=parameters)


def vhost(**parameters):
    return Mechanism(cls="LOCAL", type="VHOST_USER", parameters=parameters)


def test_both_come_with_the_package():
    """They are entry points as all mechanisms, and only memif can be handed on."""
    assert load("MEMIF") is Memif
    assert load("VHOST_USER") is VhostUser
    assert isinstance(Memif(), HandingPlugin)
    assert not isinstance(VhostUser(), HandingPlugin)


def test_a_client_offers_its_namespace():
    """As NSM's client does: the namespace, and no socket, since whoever answers listens."""
    assert Memif(inode_url=NETNS).offer(MADE) == memif(inodeURL=NETNS)


def test_whoever_answers_listens_at_a_file():
    """Its path is short, the same each time, and its own whatever the other side asked for."""
    plugin = Memif(folder="/run/nsm")
    agreed = plugin.accept(memif(inodeURL=NETNS, socketfile="/etc/passwd"), MADE)
    socket = agreed.parameters["socketfile"]
    assert socket.startswith("/run/nsm/")
    assert agreed.parameters["inodeURL"] == f"file://{socket}"
    assert plugin.accept(agreed, MADE) == agreed
    assert plugin.port(MADE, agreed, Side.CLIENT) == MemifPort(socket)


def test_whoever_answers_listens_at_a_name():
    """A name behind @ goes with the namespace in which it is looked up."""
    plugin = Memif(inode_url=NETNS, abstract=True)
    agreed = plugin.accept(memif(), MADE)
    assert agreed.parameters["socketfile"].startswith("@memif/")
    port = plugin.port(MADE, agreed, Side.ENDPOINT)
    assert (port.netns, port.listens, port.abstract) == ("/run/netns/app", True, True)


def test_a_socket_that_came_as_a_descriptor_is_opened_there():
    """Its path belongs to another file system."""
    there = memif(socketfile="/tmp/x", inodeURL="file:///proc/7/fd/9")
    assert Memif().port(MADE, there, Side.ENDPOINT).socket == "/proc/7/fd/9"


@pytest.mark.parametrize(
    ("plugin", "mechanism"),
    [
        (Memif(), memif(socketfile="/run/secret.sock")),
        (VhostUser(), vhost(socketfile="/run/secret.sock", mode="server")),
    ],
)
def test_a_path_without_a_descriptor_is_not_opened(plugin, mechanism):
    """Whoever wires may open more than who names the path: the Request is refused, and the path named."""
    with pytest.raises(Invalid, match=r"/run/secret\.sock.*descriptor"):
        plugin.port(MADE, mechanism, Side.ENDPOINT)


def test_the_endpoints_socket_is_handed_on():
    """The client gets it in place of its own namespace, and nothing of an older one stays."""
    client = memif(inodeURL=NETNS)
    assert Memif().hand_on(client, memif(socketfile="@x", inodeURL="file:///proc/7/fd/9", memifID="3"))
    assert client == memif(socketfile="@x", inodeURL="file:///proc/7/fd/9", memifID="3")


def test_a_wire_to_a_socket_is_refused_where_only_the_kernel_wires():
    """The error says what to do instead."""
    wire = cross_connect(MADE, KernelPort("/run/netns/a", "nsm-1"), MemifPort("/run/s", listens=True))
    with pytest.raises(Refused) as caught:
        check_wire(wire)
    assert "user-space switch" in caught.value.remedy


@pytest.mark.parametrize(
    "plugin", [Memif(folder="/" + "x" * PATH_LIMIT), VhostUser(folder="/" + "x" * PATH_LIMIT)]
)
def test_a_path_that_is_too_long_is_refused_with_the_limit(plugin):
    """The kernel's limit stands in the sentence."""
    with pytest.raises(Invalid, match=str(PATH_LIMIT)):
        plugin.accept(Mechanism(cls="LOCAL", type=plugin.type), MADE)


@given(st.text(max_size=150))
def test_no_name_that_is_taken_breaks_a_socket_or_a_switch(name):
    """What passes has at most 107 bytes, is absolute or behind @, and has nothing that ends an argument."""
    if socket_problem(name):
        return
    assert len(name.encode()) <= PATH_LIMIT
    assert name[0] in "/@"
    assert not set(name) & set("\0\n,")


@pytest.mark.parametrize("number", ["-1", "x", "4294967296", "٣"])
def test_a_wrong_number_on_a_socket_is_refused(number):
    """It is a number of 32 bits."""
    with pytest.raises(Invalid, match="memifID"):
        Memif().accept(memif(memifID=number), MADE)


def test_a_machine_listens_at_its_socket():
    """Server mode: whoever wires connects, and comes again; the socket travels as a descriptor."""
    offered = VhostUser(socketfile="/run/vm.sock", queues=2).offer(MADE)
    agreed = VhostUser().accept(offered, MADE)
    port = VhostUser().port(MADE, agreed, Side.CLIENT)
    assert (port.socket, port.listens, port.queues) == ("/run/vm.sock", True, 2)
    assert agreed.parameters["inodeURL"] == "file:///run/vm.sock"


def test_a_machines_socket_is_sent_anew_with_each_request():
    """The descriptor of before may be that of a forwarder that has ended; the socket of others is let be."""
    endpoint = VhostUser(folder="/run/vm")
    agreed = endpoint.accept(vhost(), MADE)
    socket = agreed.parameters["socketfile"]
    stale = vhost(**{**agreed.parameters, "inodeURL": "file:///proc/7/fd/9"})
    assert endpoint.accept(stale, MADE) == agreed
    assert agreed.parameters["inodeURL"] == f"file://{socket}"
    others = vhost(socketfile="/tmp/vm.sock", mode="server", queues="1", inodeURL="file:///proc/7/fd/9")
    assert endpoint.accept(others, MADE) == others


def test_whoever_wires_chooses_where_it_listens():
    """Client mode: no file is made at a path that the other side names."""
    agreed = VhostUser(folder="/run/nsm").accept(vhost(mode="client", socketfile="/etc/x"), MADE)
    assert agreed.parameters["socketfile"].startswith("/run/nsm/")
    assert not VhostUser().port(MADE, agreed, Side.CLIENT).listens


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"socketfile": "@x"},
        {"socketfile": "x"},
        {"socketfile": "/x", "mode": "both"},
        {"socketfile": "/x", "queues": "0"},
        {"socketfile": "/x", "queues": "65"},
        {"socketfile": "/x", "queues": "٣"},
    ],
)
def test_a_machine_that_cannot_be_wired_is_refused(parameters):
    """No file, no mode, no number of queues."""
    with pytest.raises(Invalid):
        VhostUser().accept(vhost(**parameters), MADE)
