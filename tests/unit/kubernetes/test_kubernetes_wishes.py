"""Which wires a pod wishes for, who makes them, and what is said of them at the pod."""

from __future__ import annotations

import json

import pytest

from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.pod_status import PodWire, condition_of, status_of
from nsmesh.kubernetes.refusals import CALM, KEPT, MOST, MOST_OF_ONE, Refusals
from nsmesh.kubernetes.wires import Wire
from nsmesh.kubernetes.wishes import Wish, wish_of

TEXT = "kernel://ping/nsm-1"
SAYS, MODE = "networkservicemesh.io", "networkservicemesh.io/mode"


def item(annotations: dict[str, str], **spec: object) -> dict:
    return {"metadata": {"annotations": annotations}, "spec": spec}


def client(**variable: object) -> dict:
    return {"name": "nsc", "env": [{"name": "NSM_NETWORK_SERVICES", **variable}]}


@pytest.mark.parametrize(
    ("pod", "namespace", "default", "wish"),
    [
        (item({}), {}, "agent", None),
        (item({SAYS: TEXT}), {}, "sidecar", Wish(TEXT, by_agent=False)),
        (item({SAYS: TEXT}), {}, "agent", Wish(TEXT, by_agent=True)),
        (item({SAYS: TEXT, MODE: "agent"}), {}, "sidecar", Wish(TEXT, by_agent=True)),
        (item({SAYS: TEXT, MODE: "sidecar"}), item({MODE: "agent"}), "agent", Wish(TEXT, by_agent=False)),
        (item({SAYS: TEXT}), item({MODE: "agent"}), "sidecar", Wish(TEXT, by_agent=True)),
        (item({}), item({SAYS: TEXT, MODE: "agent"}), "sidecar", Wish(TEXT, by_agent=True)),
        (item({SAYS: " "}), item({SAYS: TEXT}), "agent", None),
        (item({SAYS: "x"}, containers=[client(value=TEXT)]), {}, "agent", Wish(TEXT, by_agent=False)),
        (item({}, initContainers=[client(value=TEXT)]), {}, "agent", Wish(TEXT, by_agent=False)),
        (item({SAYS: TEXT}, containers=[client(valueFrom={})]), {}, "agent", None),
        (item({SAYS: TEXT}) | {"status": {"phase": "Failed"}}, {}, "agent", None),
    ],
)
def test_what_a_pod_wishes_for(pod, namespace, default, wish):
    """Its own word before its namespace's, a client of its own before any agent, nothing once it is over."""
    assert wish_of(pod, namespace, default) == wish


def test_wishes_that_cannot_be():
    """An unknown mode, a broken text, an empty one, and for an agent other things than interfaces."""
    with pytest.raises(Invalid, match="'magic'"):
        wish_of(item({SAYS: TEXT, MODE: "magic"}), {})
    with pytest.raises(Invalid, match="no mechanism"):
        Wish("ping/nsm-1", by_agent=True).wires()
    with pytest.raises(Invalid, match="empty"):
        Wish("", by_agent=True).wires()
    with pytest.raises(Invalid, match="memif"):
        Wish("memif://ping", by_agent=True).wires()
    assert [one.mechanism for one in Wish("memif://ping", by_agent=False).wires()] == ["MEMIF"]


def wire(service: str, interface: str, *, is_up: bool = True, **more: object) -> PodWire:
    return PodWire(("space", "pod"), service, "nse", interface, is_up=is_up, **more)


def test_the_annotation_has_the_form_of_multus():
    """An item for each interface that is up, by name; addresses without lengths; nothing not known."""
    whole = wire(
        "ping",
        "nsm-2",
        addresses=("10.0.0.1/32", "fd00::1/128"),
        mac="02:00:00:00:00:01",
        mtu=1450,
        servers=("10.0.0.53",),
        domains=("corp",),
    )
    said = json.loads(status_of([whole, wire("ping", "nsm-1"), wire("ping", "nsm-3", is_up=False)]))
    assert said == [
        {"name": "ping", "interface": "nsm-1", "ips": [], "dns": {}, "default": False},
        {
            "name": "ping",
            "interface": "nsm-2",
            "ips": ["10.0.0.1", "fd00::1"],
            "mac": "02:00:00:00:00:01",
            "mtu": 1450,
            "dns": {"nameservers": ["10.0.0.53"], "search": ["corp"]},
            "default": False,
        },
    ]
    assert status_of([]) == ""


def test_the_condition_counts_by_service():
    """Two wires of one service do not stand for one of each; those that are down do not count."""
    wished = Wish("kernel://a,kernel://b,kernel://a", by_agent=True).wires()
    one = [wire("a", "1"), wire("a", "2"), wire("a", "3"), wire("b", "4", is_up=False)]
    assert condition_of(wished, one)["message"] == "1 of 3 wires are not up: b"
    assert condition_of(wished, [*one, wire("b", "5")])["status"] == "True"
    assert condition_of([], [], "broken") == {
        "type": "networkservicemesh.io/wires",
        "status": "False",
        "reason": "Unreadable",
        "message": "broken",
    }


def test_refusals_are_few_and_end():
    """Written once in a while; not more than so many of one identity, and of all; gone when nobody asks."""

    def refused(number: int) -> Wire:
        return Wire(("space", f"wire-{number}"), "pod", {}, {})

    held = Refusals()
    assert held.take(refused(0), "a", 0.0)
    assert not held.take(refused(0), "a", CALM / 2)
    assert held.take(refused(0), "a", CALM)
    assert held.over(CALM + KEPT - 1) == []
    assert held.over(CALM + KEPT) == [("space", "wire-0")]
    of_one = sum(held.take(refused(number), "a", 0.0) for number in range(MOST_OF_ONE + 5))
    assert of_one == MOST_OF_ONE
    of_all = sum(held.take(refused(number), f"of-{number}", 0.0) for number in range(MOST_OF_ONE, 2 * MOST))
    assert of_all == MOST - MOST_OF_ONE
