"""SelectMechanism, OfferMechanisms and TranslateMechanism: the two halves of a negotiation."""

from __future__ import annotations

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, Tail, chain
from nsmesh.core.errors import Invalid, Refused
from nsmesh.core.peering import TARGET
from nsmesh.core.probes import Check
from nsmesh.core.virtual import run
from nsmesh.elements.offer_mechanisms import OfferMechanisms
from nsmesh.elements.select_mechanism import SelectMechanism
from nsmesh.elements.translate_mechanism import TranslateMechanism
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.noop import Noop
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest, Path, PathSegment, State

NETNS = "file:///run/netns/app"


class Tunnel(Noop):
    """A REMOTE mechanism, as other plug-ins will be."""

    type = "VXLAN"
    cls = "REMOTE"

    def offer(self, connection):
        return Mechanism(cls="REMOTE", type="VXLAN") if connection.payload == "ETHERNET" else None


def kernel(**parameters):
    return Mechanism(cls="LOCAL", type="KERNEL", parameters=parameters)


def request(*preferences, mechanism=None, **fields):
    path = Path(index=1, path_segments=[PathSegment(name="mgr"), PathSegment(name="fwd")])
    made = Connection(id="c", network_service="intranet", mechanism=mechanism, path=path, **fields)
    return NetworkServiceRequest(connection=made, mechanism_preferences=preferences)


def ask(handler, made, call=None):
    return run(handler.request(call or Call(), made))


def test_the_first_preference_that_works_is_chosen():
    """Unsupported types and preferences that cannot work are passed over; cls is not looked at."""
    handler = chain(SelectMechanism([Kernel(), Noop()]))
    answer = ask(
        handler,
        request(
            Mechanism(cls="LOCAL", type="MEMIF"),
            kernel(name="no-namespace"),
            Mechanism(cls="REMOTE", type="KERNEL", parameters={"inodeURL": NETNS, "name": "nsm-1"}),
            Mechanism(cls="LOCAL", type="NOOP"),
        ),
    )
    assert answer.mechanism.type == "KERNEL"
    assert answer.mechanism.parameters["name"] == "nsm-1"
    assert answer.path.path_segments[1].metrics["server_interface"] == "KERNEL/nsm-1"
    assert not answer.path.path_segments[0].metrics


def test_what_was_agreed_to_is_kept():
    """With the mechanism set, the preferences do not count."""
    agreed = kernel(inodeURL=NETNS, name="nsm-1")
    answer = ask(
        chain(SelectMechanism([Noop(), Kernel()])), request(Mechanism(type="NOOP"), mechanism=agreed)
    )
    assert answer.mechanism == agreed


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (request(), "the Request offers no mechanism"),
        (request(mechanism=Mechanism(type="MEMIF")), "unsupported mechanism MEMIF: here is KERNEL, NOOP"),
        (
            request(Mechanism(type="MEMIF"), kernel()),
            "unsupported mechanism: MEMIF: not supported here; KERNEL: the KERNEL mechanism names no network",
        ),
    ],
)
def test_a_failed_negotiation_says_what_was_offered_and_what_there_is(made, said):
    """Each refused preference is listed with its reason."""
    with pytest.raises(Invalid) as caught:
        ask(chain(SelectMechanism([Kernel(), Noop()])), made)
    assert said in str(caught.value)
    assert "KERNEL, NOOP" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "payload", "offered"),
    [
        ("unix:///run/nse.sock", "ETHERNET", ["KERNEL"]),
        ("inode://4/26", "ETHERNET", ["KERNEL"]),
        (Tail(), "ETHERNET", ["KERNEL"]),
        ("tcp://10.0.0.2:5001", "ETHERNET", ["VXLAN"]),
        (None, "ETHERNET", ["KERNEL", "VXLAN"]),
        (None, "IP", ["KERNEL"]),
    ],
)
def test_offers_are_those_that_can_reach_the_next_hop(target, payload, offered):
    """The same machine is offered LOCAL mechanisms, another one REMOTE ones; preferences are our own."""
    seen = []
    handler = chain(
        OfferMechanisms([Kernel(), Tunnel()]),
        Check("request", lambda call, made: seen.extend(made.mechanism_preferences)),
    )
    call = Call() if target is None else Call().put(TARGET, target)
    ask(handler, request(Mechanism(type="OLD"), payload=payload), call)
    assert [mechanism.type for mechanism in seen] == offered


def test_a_request_of_our_own_offers_the_class_agreed_to():
    """A re-request has no target in its call; what was agreed to says where the next hop is."""
    seen = []
    handler = chain(
        OfferMechanisms([Kernel(), Tunnel()]),
        Check("request", lambda call, made: seen.extend(made.mechanism_preferences)),
    )
    answer = ask(handler, request(mechanism=kernel(name="nsm-1"), payload="ETHERNET"))
    assert [mechanism.type for mechanism in seen] == ["KERNEL"]
    assert answer.path.path_segments[1].metrics["client_interface"] == "KERNEL/nsm-1"


def test_nothing_to_offer_is_refused_here():
    """The error names the place, what is wanted there and what there is."""
    with pytest.raises(Refused) as caught:
        ask(chain(OfferMechanisms([Kernel()])), request(), Call().put(TARGET, "tcp://10.0.0.2:5001"))
    assert "no mechanism to offer to tcp://10.0.0.2:5001" in str(caught.value)
    assert "REMOTE is wanted, here is KERNEL (LOCAL)" in str(caught.value)


class Downstream(Tail):
    """The next hop: agrees to its own interface, and writes down what it was sent."""

    def __init__(self):
        self.seen = []
        self.closed = []

    async def request(self, call, request):
        self.seen.append(copy_of(request))
        request.connection.mechanism.CopyFrom(kernel(name="far", inodeURL="file:///run/netns/nse"))
        return request.connection

    async def close(self, call, connection):
        self.closed.append(connection)


class Peek(Element):
    """Looks at what the state holds once the answer is there."""

    def __init__(self):
        self.downstream = None

    async def request(self, call, request, next):
        answer = await next.request(call, request)
        self.downstream = call.state.get(DOWNSTREAM)
        return answer


def test_neither_side_sees_the_others_mechanism():
    """Downstream starts fresh and gets its own back on refresh and Close; upstream keeps its own."""
    near = kernel(name="near", inodeURL=NETNS)

    async def scenario():
        hop, peek = Downstream(), Peek()
        handler = chain(
            Begin(),
            SelectMechanism([Kernel()]),
            peek,
            TranslateMechanism(),
            OfferMechanisms([Kernel()]),
            end=hop,
        )
        answer = await handler.request(Call(), request(near))
        assert answer.mechanism == near
        assert peek.downstream.parameters["name"] == "far"
        assert not hop.seen[0].connection.HasField("mechanism")
        (offered,) = hop.seen[0].mechanism_preferences
        assert list(offered.parameters) == ["name"]
        assert offered.parameters["name"] != "near"
        metrics = answer.path.path_segments[1].metrics
        assert metrics["server_interface"] == "KERNEL/near"
        assert metrics["client_interface"] == "KERNEL/far"

        await handler.request(Call(), NetworkServiceRequest(connection=copy_of(answer)))
        assert hop.seen[1].connection.mechanism.parameters["name"] == "far"
        assert list(hop.seen[1].mechanism_preferences) == [offered]

        again = NetworkServiceRequest(connection=copy_of(answer), mechanism_preferences=[near])
        again.connection.state = State.RESELECT_REQUESTED
        await handler.request(Call(), again)
        assert hop.closed[0].mechanism.parameters["name"] == "far"
        assert not hop.seen[2].connection.HasField("mechanism")

        await handler.close(Call(), answer)
        assert hop.closed[1].mechanism.parameters["name"] == "far"

    run(scenario())


def test_a_hop_that_agrees_to_nothing_leaves_nothing():
    """Without a mechanism in the answer there is none to re-send, and upstream's is still its own."""

    async def scenario():
        peek = Peek()
        handler = chain(peek, TranslateMechanism())
        answer = await handler.request(Call(), request(mechanism=kernel(name="near")))
        assert answer.mechanism.parameters["name"] == "near"
        assert peek.downstream is None
        bare = await handler.request(Call(), request())
        assert not bare.HasField("mechanism")

    run(scenario())


def test_what_fits_a_tunnel_is_asked_for():
    """The MTU goes down with an offer to another node, as not every server lowers it; elsewhere it stays."""
    seen = []

    class Server(Tail):
        async def request(self, call, request):
            seen.append(request.connection.context.MTU)
            request.connection.mechanism.CopyFrom(request.mechanism_preferences[0])
            return request.connection

    plugins = [Kernel(), Vxlan("192.0.2.1", link_mtu=lambda: 1500)]
    handler = chain(Begin(), OfferMechanisms(plugins), end=Server())
    for target, wanted in (("tcp://192.0.2.2:5001", 1450), ("unix:///nse", 0)):
        answer = ask(handler, request(payload="IP"), Call().put(TARGET, target))
        assert seen.pop() == answer.context.MTU == wanted
