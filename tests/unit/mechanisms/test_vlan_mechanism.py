"""VLAN: the endpoint names it, the forwarder finds the way, and no forwarder agrees to it."""

from __future__ import annotations

import pytest

from nsmesh.core.errors import Invalid
from nsmesh.core.mechanism import carries, tunnels
from nsmesh.mechanisms import available
from nsmesh.mechanisms.vlan import Vlan, VlanGiver
from nsmesh.model.messages import Connection, Mechanism
from nsmesh.model.tunnels import BridgePort, OutsidePort, VlanPort
from nsmesh.model.wiring import Side

FORWARDER = Vlan(
    {
        "gw-1": lambda vlan: VlanPort("eth1", vlan, 9000),
        "gw-3": lambda vlan: BridgePort("br-ext", vlan, 1400, via="gw-3"),
    }
)
ENDPOINT = VlanGiver({"finance": 100, "raw": 0})


def asked(service: str = "finance", **labels: str) -> Connection:
    return Connection(id="c", network_service=service, labels=labels)


def test_a_vlan_is_agreed_on():
    """What NSM has on the wire: an empty offer, the tag in the answer; agreeing again gives the same."""
    offer = FORWARDER.offer(asked())
    assert (offer.cls, offer.type, dict(offer.parameters)) == ("REMOTE", "VLAN", {})
    agreed = ENDPOINT.accept(offer, asked())
    assert dict(agreed.parameters) == {"vlan-id": "100"}
    assert ENDPOINT.accept(agreed, asked()) == agreed
    assert FORWARDER.port(asked(via="gw-1"), agreed, Side.ENDPOINT) == VlanPort("eth1", 100, 9000)
    assert {one.describe(agreed) for one in (FORWARDER, ENDPOINT)} == {"VLAN/100"}
    assert ENDPOINT.port(asked(), agreed, Side.CLIENT) is None
    assert ENDPOINT.offer(asked()) is None


def test_a_tag_of_zero_is_one():
    """Frames without a tag: the parameter is there all the same."""
    agreed = ENDPOINT.accept(FORWARDER.offer(asked("raw")), asked("raw"))
    assert agreed.parameters["vlan-id"] == "0"
    assert FORWARDER.port(asked(via="gw-1"), agreed, Side.ENDPOINT).vlan == 0


def test_what_leads_there_may_be_a_bridge():
    """With its name, the tag and its MTU; it leads outside as an interface does, and any number may."""
    agreed = ENDPOINT.accept(FORWARDER.offer(asked()), asked())
    port = FORWARDER.port(asked(via="gw-3"), agreed, Side.ENDPOINT)
    assert port == BridgePort("br-ext", 100, 1400)
    assert isinstance(port, OutsidePort)
    assert not isinstance(port, VlanPort)
    assert (port.place, port.frames, port.via) == ((), True, "gw-3")


@pytest.mark.parametrize(
    ("labels", "tag", "says"),
    [
        ({}, "100", "via nothing"),
        ({"via": "gw-2"}, "100", "via gw-2, and no interface or bridge of this node"),
        ({"via": "gw-1"}, "4095", "no number from 0 to 4094"),
        ({"via": "gw-1"}, "", "no number from 0 to 4094"),
    ],
)
def test_a_way_that_is_not_here_is_refused(labels, tag, says):
    """With what the endpoint said."""
    mechanism = Mechanism(cls="REMOTE", type="VLAN", parameters={"vlan-id": tag})
    with pytest.raises(Invalid, match=says):
        FORWARDER.port(asked(**labels), mechanism, Side.ENDPOINT)


def test_who_does_not_give_it_does_not_agree():
    """Neither a forwarder nor an endpoint for a service that is no VLAN of its own."""
    with pytest.raises(Invalid, match="this is a forwarder"):
        FORWARDER.accept(FORWARDER.offer(asked()), asked())
    with pytest.raises(Invalid, match="other is no VLAN here"):
        ENDPOINT.accept(FORWARDER.offer(asked()), asked("other"))


@pytest.mark.parametrize("payload", ["ETHERNET", "IP", "", "MPLS", "L2TP"])
@pytest.mark.parametrize("side", [FORWARDER, ENDPOINT], ids=["forwarder", "endpoint"])
def test_it_carries_every_payload(side, payload):
    """An empty one is IP."""
    assert carries(side, Connection(payload=payload))


def test_it_has_the_face_of_a_tunnel():
    """So the elements treat it as one; it limits nothing before the way is known, and never collides."""
    assert tunnels([FORWARDER]) == {"VLAN": FORWARDER}
    mechanism = FORWARDER.offer(asked())
    FORWARDER.introduce(mechanism, Side.CLIENT, "02:00:00:00:00:01")
    assert not mechanism.parameters
    assert FORWARDER.largest(mechanism) == 0
    assert FORWARDER.another(mechanism) == mechanism
    assert "KERNEL" in available()
