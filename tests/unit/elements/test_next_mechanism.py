"""NextMechanism: what the kernel refuses is left out, on whichever side of it a forwarder stands."""

from __future__ import annotations

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Conflict, MeshError, Refused
from nsmesh.core.life import REACHED
from nsmesh.core.mechanism import REFUSED, lower_mtu
from nsmesh.core.virtual import run
from nsmesh.datapath.base import TunnelRefused, TunnelTaken
from nsmesh.elements.next_mechanism import NextMechanism
from nsmesh.elements.offer_mechanisms import OfferMechanisms
from nsmesh.elements.select_mechanism import SelectMechanism
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.mechanisms.wireguard import Wireguard
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionContext,
    Mechanism,
    NetworkServiceRequest,
    Path,
    PathSegment,
)


def link_mtu():
    return 1500


PLUGINS = [
    Kernel(),
    Wireguard("192.0.2.2", link_mtu=link_mtu, secret=b"2" * 32),
    Vxlan("192.0.2.2", link_mtu=link_mtu),
]
OTHER = [
    Wireguard("192.0.2.1", link_mtu=link_mtu, secret=b"1" * 32),
    Vxlan("192.0.2.1", link_mtu=link_mtu),
]


class Wire(Element):
    """Stands for CrossConnectWire: refuses tunnels of some types, by what was agreed on either side."""

    def __init__(self, *refuses, agreed=None, error=None, lower=False):
        self.refuses = refuses
        self.lower = lower
        self.agreed = list(agreed or [])
        self.error = error
        self.seen = []

    async def request(self, call, request, next):
        self.seen.append(copy_of(request))
        if self.error:
            raise self.error
        if self.agreed:
            refused = call.state.get(REFUSED) or ()
            left = [one for one in self.agreed if one not in refused]
            if not left:
                raise Refused("no mechanism to offer to tcp://node2")
            call.state.set(DOWNSTREAM, Mechanism(cls="REMOTE", type=left[0]))
            reached = copy_of(request.connection)
            if self.lower:  # as the mechanism's MTU does, in the answer
                lower_mtu(reached.context, {"WIREGUARD": 1440, "VXLAN": 1450}[left[0]])
                request.connection.context.MTU = reached.context.MTU
            reached.path.path_segments.add(name="behind", id="b1")
            call.state.set(REACHED, reached)
            kind = left[0]
        else:
            kind = request.connection.mechanism.type
            if self.lower:
                call.state.set(REACHED, copy_of(request.connection))
        if kind in self.refuses:
            request.connection.ClearField("mechanism")  # as TranslateMechanism does on the way
            raise TunnelRefused(f"the kernel has no {kind}", remedy="load a module")
        return request.connection


def ask(wire, *preferences, mechanism=None, payload="IP", mtu=0):
    made = Connection(
        id="c",
        context=ConnectionContext(MTU=mtu),
        payload=payload,
        mechanism=mechanism,
        path=Path(path_segments=[PathSegment(name="fwd", id="c")]),
    )
    handler = chain(Begin(), NextMechanism(PLUGINS), SelectMechanism(PLUGINS), wire)
    return run(
        handler.request(Call(), NetworkServiceRequest(connection=made, mechanism_preferences=preferences))
    )


def offers():
    return [plugin.offer(Connection(id="a", payload="IP")) for plugin in OTHER]


def kernel():
    return Mechanism(
        cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1", "inodeURL": "file:///run/netns/a"}
    )


def test_who_answers_takes_the_next_preference():
    """The other node offered two: the second is agreed to."""
    wire = Wire("WIREGUARD")
    assert ask(wire, *offers()).mechanism.type == "VXLAN"
    assert [request.connection.mechanism.type for request in wire.seen] == ["WIREGUARD", "VXLAN"]


def test_who_asks_offers_it_no_more():
    """The next node is asked for the very connection again, without the mechanism that failed."""
    wire = Wire("WIREGUARD", agreed=["WIREGUARD", "VXLAN"])
    ask(wire, kernel())
    first, again = wire.seen
    assert [segment.id for segment in again.connection.path.path_segments] == ["c", "b1"]
    assert list(again.mechanism_preferences) == list(first.mechanism_preferences)


@pytest.mark.parametrize("agreed", [None, ["WIREGUARD", "VXLAN"]])
@pytest.mark.parametrize(("asked", "given"), [(0, 1450), (1300, 1300), (9000, 1450)])
def test_the_mtu_is_that_of_the_mechanism_that_is_used(agreed, asked, given):
    """Not the smaller one of what was refused; who asked for less gets less."""
    wire = Wire("WIREGUARD", agreed=agreed, lower=True)
    preferences = [kernel()] if agreed else offers()
    found = ask(wire, *preferences, mtu=asked).context.MTU
    assert wire.seen[1].connection.context.MTU in {asked, given}
    assert found == given


@pytest.mark.parametrize("agreed", [None, ["WIREGUARD", "VXLAN"]])
def test_the_error_says_what_became_of_each(agreed):
    """On both sides, when nothing is left."""
    wire = Wire("WIREGUARD", "VXLAN", agreed=agreed)
    preferences = [kernel()] if agreed else offers()
    told = "WIREGUARD: the kernel has no WIREGUARD.*; VXLAN: the kernel has no VXLAN.*; then: "
    with pytest.raises(Refused, match=f"no mechanism works for connection c: {told}"):
        ask(wire, *preferences)


def test_what_was_agreed_long_ago_is_not_exchanged():
    """A refresh of such a wire fails, and its client heals it by asking anew."""
    agreed = PLUGINS[1].accept(offers()[0], Connection(id="c"))
    wire = Wire("WIREGUARD")
    with pytest.raises(TunnelRefused):
        ask(wire, mechanism=agreed)
    assert len(wire.seen) == 1


@pytest.mark.parametrize("error", [TunnelTaken("it is taken"), Conflict("a name is taken")])
def test_other_errors_are_not_its_business(error):
    """Not even that a tunnel is taken: another of the same mechanism is tried then."""
    wire = Wire(error=error)
    with pytest.raises(type(error)):
        ask(wire, *offers())
    assert len(wire.seen) == 1


def test_payloads_choose_among_tunnels():
    """What carries packets only is neither offered nor agreed to for frames; the error says so."""
    assert ask(Wire(), *offers(), payload="ETHERNET").mechanism.type == "VXLAN"
    with pytest.raises(MeshError, match="WIREGUARD carries IP, and the payload is ETHERNET"):
        ask(Wire(), offers()[0], payload="ETHERNET")


@pytest.mark.parametrize(
    ("payload", "types"),
    [
        ("IP", ["WIREGUARD", "VXLAN"]),
        ("", ["WIREGUARD", "VXLAN"]),
        ("ETHERNET", ["VXLAN"]),
        ("MPLS", ["VXLAN"]),
    ],
)
def test_offers_follow_payload_and_refusals(payload, types):
    """In the order of the plug-ins; what was refused for the connection is passed over."""

    class End(Element):
        async def request(self, call, request, next):
            seen.append([one.type for one in request.mechanism_preferences if one.cls == "REMOTE"])
            return request.connection

    class Refusing(Element):
        async def request(self, call, request, next):
            call.state.set(REFUSED, frozenset({"VXLAN"}))
            return await next.request(call, request)

    for elements, wanted in (((), types), ((Refusing(),), [one for one in types if one != "VXLAN"])):
        seen = []
        handler = chain(Begin(), *elements, OfferMechanisms(PLUGINS), End())
        run(handler.request(Call(), NetworkServiceRequest(connection=Connection(id="c", payload=payload))))
        assert seen == [wanted]
