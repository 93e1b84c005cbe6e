"""ChangeTunnel: a taken tunnel is exchanged, on whichever side of it a forwarder stands."""

from __future__ import annotations

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Conflict, Exhausted
from nsmesh.core.life import REACHED
from nsmesh.core.virtual import run
from nsmesh.datapath.base import TunnelTaken
from nsmesh.datapath.taken import InterfaceTaken
from nsmesh.elements.change_tunnel import TRIES, ChangeTunnel
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest, Path, PathSegment

PLUGINS = [Kernel(), Vxlan("192.0.2.2", link_mtu=lambda: 1500)]


def vxlan(**parameters):
    return Mechanism(cls="REMOTE", type="VXLAN", parameters=parameters)


def kernel():
    return Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"})


class Hop(Element):
    """What stands behind: fails ``times`` times; ``agreed`` is what its next hop has agreed to."""

    def __init__(self, times, agreed=None, error=None):
        self.left = times
        self.agreed = agreed
        self.error = error or TunnelTaken("VNI 4 is another wire's")
        self.seen = []

    async def request(self, call, request, next):
        self.seen.append((copy_of(request), call.state.get(DOWNSTREAM)))
        if self.agreed is not None:
            call.state.set(DOWNSTREAM, call.state.get(DOWNSTREAM) or self.agreed)
        reached = copy_of(request.connection)
        if len(reached.path.path_segments) < 2:
            reached.path.path_segments.add(name="behind", id="b1")
        call.state.set(REACHED, reached)
        if self.left:
            self.left -= 1
            raise self.error
        return request.connection


def ask(hop, *preferences, mechanism=None, plugins=PLUGINS):
    made = Connection(id="c", mechanism=mechanism, path=Path(path_segments=[PathSegment(name="fwd", id="c")]))
    handler = chain(Begin(), ChangeTunnel(plugins), hop)
    request = NetworkServiceRequest(connection=made, mechanism_preferences=preferences)
    return run(handler.request(Call(), request))


def vni(mechanism):
    return mechanism.parameters.get("vni", "")


def test_who_answers_offers_itself_another():
    """Each try has another VNI in the preference; a LOCAL one beside it stays as it is."""
    hop = Hop(2)
    ask(hop, kernel(), vxlan(src_ip="192.0.2.1"))
    tried = [vni(request.mechanism_preferences[1]) for request, _ in hop.seen]
    assert len(set(tried)) == 3
    assert tried[0] == ""
    assert all(request.mechanism_preferences[0] == kernel() for request, _ in hop.seen)


def test_what_was_agreed_is_exchanged_too():
    """A refresh whose tunnel was lost meanwhile."""
    hop = Hop(1)
    answer = ask(hop, mechanism=vxlan(src_ip="192.0.2.1", vni="4"))
    assert vni(answer.mechanism) not in {"", "4"}


def test_who_asked_proposes_another():
    """The preferences of its client are left alone; the other node is asked for the very connection again."""
    hop = Hop(1, agreed=vxlan(src_ip="192.0.2.2", dst_ip="192.0.2.9", vni="4"))
    ask(hop, kernel())
    (_, first), (again, second) = hop.seen
    assert first is None
    assert vni(second) not in {"", "4"}
    assert list(again.mechanism_preferences) == [kernel()]
    assert [segment.id for segment in again.connection.path.path_segments] == ["c", "b1"]


def test_it_gives_up():
    """After some tries, in one sentence."""
    hop = Hop(100)
    with pytest.raises(Exhausted, match=f"no free tunnel was found for connection c in {TRIES} tries"):
        ask(hop, vxlan(src_ip="192.0.2.1"))
    assert len(hop.seen) == TRIES


def test_other_errors_are_not_its_business():
    """Nor is a node that has no tunnels at all."""
    with pytest.raises(Conflict, match="a name is taken"):
        ask(Hop(1, error=Conflict("a name is taken")), vxlan())
    with pytest.raises(TunnelTaken):
        ask(Hop(1), kernel(), plugins=[Kernel()])


def taken():
    return InterfaceTaken("an interface nse-1 exists already", netns="/run/netns/nse", name="nse-1")


def test_a_taken_name_at_the_endpoint_is_exchanged():
    """The endpoint is asked for the very connection again, with another name; nobody above hears."""
    hop = Hop(2, agreed=kernel(), error=taken())
    ask(hop, kernel())
    names = [agreed.parameters["name"] for _, agreed in hop.seen[1:]]
    assert len({"nsm-1", *names}) == 3
    assert [len(request.connection.path.path_segments) for request, _ in hop.seen] == [1, 2, 2]
    assert list(hop.seen[-1][0].mechanism_preferences) == [kernel()]


def test_names_are_not_tried_for_ever():
    """An endpoint that insists on its name gets told that it is taken."""
    hop = Hop(TRIES, agreed=kernel(), error=taken())
    with pytest.raises(InterfaceTaken):
        ask(hop, kernel())
    assert len(hop.seen) == TRIES


def test_a_taken_name_of_another_mechanism_stays():
    """Where nothing was agreed, or names are not ours, the error goes up at once."""
    for hop in (Hop(1, error=taken()), Hop(1, agreed=vxlan(vni="4"), error=taken())):
        with pytest.raises(InterfaceTaken):
            ask(hop, kernel())
        assert len(hop.seen) == 1
