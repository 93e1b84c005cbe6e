"""FitUnderlay: what two nodes agree on passes between them."""

from __future__ import annotations

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.paths import UNDERLAY, Fit
from nsmesh.core.virtual import run
from nsmesh.elements.fit_underlay import FitUnderlay
from nsmesh.elements.select_mechanism import SelectMechanism
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.mechanisms.wireguard import Wireguard
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest, Path, PathSegment

PLUGINS = [
    Kernel(),
    Vxlan("192.0.2.2", link_mtu=lambda: 1500),
    Wireguard("192.0.2.2", link_mtu=lambda: 1500, secret=bytes(32)),
]


class Known:
    """Paths whose width is known; ``asked`` has who was asked about."""

    def __init__(self, path=1500):
        self.path = path
        self.asked = []

    async def towards(self, peer):
        self.asked.append(peer)
        if self.path is None:
            raise Unavailable("the link is down")
        return Fit(peer, self.path, 1500)


class Last(Element):
    async def request(self, call, request, next):
        return request.connection


def ask(paths, *preferences, mechanism=None, metrics=None):
    segment = PathSegment(name="fwd", id="c", metrics=metrics or {})
    made = Connection(id="c", mechanism=mechanism, path=Path(path_segments=[segment]))
    handler = chain(Begin(), FitUnderlay(PLUGINS, paths), SelectMechanism(PLUGINS), Last())
    return run(
        handler.request(Call(), NetworkServiceRequest(connection=made, mechanism_preferences=preferences))
    )


def vxlan(mtu="1450", **more):
    return Mechanism(cls="REMOTE", type="VXLAN", parameters={"src_ip": "192.0.2.1", "MTU": mtu, **more})


@pytest.mark.parametrize(
    ("path", "mtu", "agreed"), [(1500, "1450", 1450), (1400, "1450", 1350), (1400, "1300", 1300)]
)
def test_the_narrowest_of_all_counts(path, mtu, agreed):
    """This node's link, what the other node says, and the way between: in mechanism and context alike."""
    answer = ask(Known(path), vxlan(mtu))
    assert answer.mechanism.parameters["MTU"] == str(agreed)
    mtu_of_context = answer.context.MTU
    assert mtu_of_context == agreed


def test_a_narrow_way_is_told_as_long_as_it_is():
    """The forwarder's segment says what was found, and no more once the way is wide again."""
    narrow = ask(Known(1400), vxlan())
    metrics = dict(narrow.path.path_segments[0].metrics)
    assert metrics[UNDERLAY] == "1400 of 1500 bytes to 192.0.2.1"
    wide = ask(Known(1500), vxlan(), metrics=metrics)
    assert UNDERLAY not in wide.path.path_segments[0].metrics


def test_what_was_agreed_stays_on_a_refresh():
    """A mechanism that was lowered before is lowered once, not again and again."""
    first = ask(Known(1400), vxlan())
    again = ask(Known(1400), vxlan(), mechanism=first.mechanism)
    assert again.mechanism.parameters["MTU"] == "1350"


def test_nobody_is_asked_for_a_wire_of_this_node():
    """LOCAL mechanisms, and forwarders without an underlay, try nothing."""
    paths = Known(1400)
    assert ask(paths, Mechanism(cls="LOCAL", type="KERNEL", parameters={"inodeURL": "file:///x"})).mechanism
    assert paths.asked == []
    assert ask(None, vxlan()).context.MTU == 1450


def test_what_cannot_be_tried_is_left():
    """An underlay that is not there is told by whoever needs it, here it changes nothing."""
    assert ask(Known(None), vxlan()).context.MTU == 1450
