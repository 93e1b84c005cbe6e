"""The client as a role, where a wire ends in a socket."""

from __future__ import annotations

import asyncio

from nsmesh.chains import nsc
from nsmesh.chains.settings_nsc import NscSettings
from nsmesh.chains.wanted import Wanted, wanted_services
from nsmesh.elements.receive_fd import ReceiveFdClient
from nsmesh.model.messages import Connection, Mechanism

SETTINGS = NscSettings(name="nsc", netns="/run/netns/app", network_services=("memif://s", "kernel://s"))


def wanted():
    return [Wanted.of(SETTINGS, number, url) for number, url in enumerate(wanted_services(SETTINGS))]


def test_memif_is_offered_with_the_namespace_alone():
    """As NSM's client does it."""
    memif, kernel = wanted()
    assert memif.offer == Mechanism(
        cls="LOCAL", type="MEMIF", parameters={"inodeURL": "file:///run/netns/app"}
    )
    assert kernel.offer.type == "KERNEL"


def test_a_machine_asks_for_a_socket_to_which_it_connects():
    """The forwarder chooses the socket and listens; none of the client's files is named."""
    settings = NscSettings(name="nsc", network_services=("vhost-user://s",))
    (url,) = wanted_services(settings)
    wire = Wanted.of(settings, 0, url)
    assert wire.offer == Mechanism(
        cls="LOCAL", type="VHOST_USER", parameters={"mode": "client", "queues": "1"}
    )
    held = Connection(id="nsc-0", mechanism=Mechanism(type="VHOST_USER", parameters={"socketfile": "/s"}))
    again = wire.request("nsc", held, reselect=False)
    assert again.connection.mechanism.parameters == {"socketfile": "/s"}
    assert nsc._receiving([wire]) == ()


def test_descriptors_are_taken_where_a_socket_is_asked_for():
    """A client of kernel interfaces alone has no use for them."""
    memif, kernel = wanted()
    assert [type(element) for element in nsc._receiving([kernel, memif])] == [ReceiveFdClient]
    assert nsc._receiving([kernel]) == ()


def test_a_wire_of_a_socket_is_not_looked_at():
    """Nobody here could see through it, and healing it for that would never end."""

    async def dead(connection):
        return False

    alive = nsc._in_the_kernel(dead)
    assert asyncio.run(alive(Connection(mechanism=Mechanism(type="MEMIF"))))
    assert asyncio.run(alive(Connection(mechanism=Mechanism(type="VHOST_USER"))))
    assert not asyncio.run(alive(Connection(mechanism=Mechanism(type="KERNEL"))))
