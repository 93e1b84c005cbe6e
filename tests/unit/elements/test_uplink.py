"""Uplink: the MTU of the interface that leads to a VLAN, and the client's own labels."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Invalid
from nsmesh.elements.offer_mechanisms import OfferMechanisms
from nsmesh.elements.uplink import Uplink
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vlan import Vlan
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest
from nsmesh.model.tunnels import VlanPort


class Answers(Element):
    """Answers as an endpoint of a VLAN does, or not."""

    def __init__(self, mechanism: str = "VLAN", **labels: str) -> None:
        self.labels, self.mechanism = labels, mechanism
        self.offered: list[str] = []

    async def request(self, call, request, next):
        """Note what is offered, and answer."""
        self.offered = [item.type for item in request.mechanism_preferences]
        answer = request.connection
        answer.labels.clear()
        answer.labels.update(self.labels)
        answer.context.MTU = 0
        answer.mechanism.CopyFrom(Mechanism(type=self.mechanism, parameters={"vlan-id": "7"}))
        return answer


def ask(answers, plugins, mtu=0):
    made = chain(Begin(), OfferMechanisms(plugins), Uplink(plugins), answers)
    request = NetworkServiceRequest(connection=Connection(id="c", payload="ETHERNET", labels={"app": "x"}))
    request.connection.context.MTU = mtu
    return asyncio.run(made.request(Call(), request))


VLAN = Vlan({"gw-1": lambda vlan: VlanPort("eth1", vlan, 1400)})


def test_the_interface_says_how_much_fits():
    """Its MTU is the client's, and the client's labels stand beside the way."""
    answer = ask(Answers(via="gw-1"), [Kernel(), VLAN])
    assert answer.context.MTU == 1400
    assert dict(answer.labels) == {"app": "x", "via": "gw-1"}


def test_an_answer_without_a_way_is_refused():
    """The error names what the endpoint has to say."""
    with pytest.raises(Invalid, match="not the way to it"):
        ask(Answers(), [VLAN])


def test_what_is_no_vlan_passes_as_it_is():
    """With and without the mechanism here."""
    for plugins in ([Kernel(), VLAN], [Kernel()]):
        answer = ask(Answers("NOOP", other="y"), plugins)
        assert dict(answer.labels) == {"other": "y"}
        assert answer.context.MTU == 0
