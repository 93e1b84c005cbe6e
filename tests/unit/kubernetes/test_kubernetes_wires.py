"""A manager's connection as an object."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.call import Peer
from nsmesh.core.errors import Unauthorized
from nsmesh.core.outcome import Outcome
from nsmesh.kubernetes.pod_status import PodWire
from nsmesh.kubernetes.wires import NODE_LABEL, label_of, pod_of_id, refused_wire, wire_of
from nsmesh.model.messages import Connection, State


def token(subject: str) -> str:
    """Return a token that claims a subject; nobody looks at its signature here."""

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "ES256", "typ": "JWT"}).encode())
    return f"{head}.{part(json.dumps({'sub': subject}).encode())}.{part(bytes(64))}"


def connection(subject: str = "", client: str = "nsc", label: str = "", index: int = 1) -> Connection:
    """Return a connection as a manager knows it."""
    made = Connection(id="m", network_service="s", state=State.UP)
    made.path.path_segments.add(name=client, id="c-0", token=token(subject) if subject else "")
    made.path.path_segments.add(name="nsmgr", id="m")
    made.path.index = index
    if label:
        made.labels["podName"] = label
    return made


@pytest.mark.parametrize(
    ("subject", "label", "namespace", "client"),
    [
        ("spiffe://d/ns/team/pod/alpine-0", "liar", "team", "alpine-0"),
        ("spiffe://d/ns/team/sa/default", "alpine-0", "team", "alpine-0"),
        ("spiffe://d/ns/team/sa/default", "", "team", "nsc"),
        ("spiffe://d/ns/team/sa/default", "nsmgr-pod", "team", "nsc"),
        ("spiffe://d/something/else", "alpine-0", "nsm", "alpine-0"),
        ("spiffe://d/ns/../pod/x", "", "nsm", "nsc"),
        ("", "", "nsm", "nsc"),
    ],
)
def test_who_the_client_is(subject, label, namespace, client):
    """Its identity says more than labels, labels more than its name; a manager's own do not count."""
    wire = wire_of(connection(subject, label=label), namespace="nsm", own_pod="nsmgr-pod")
    assert (wire.place[0], wire.client) == (namespace, client)


def test_a_refusal_is_shown_where_the_transport_says():
    """A token that names another pod has no weight: nobody has looked at it, and the Request was refused."""
    made = connection("spiffe://d/ns/victim/pod/web")
    peer = Peer(spiffe_id="spiffe://d/ns/own/pod/liar")
    error = Unauthorized("refused by policy next_token_signed at nsmgr-1", remedy="send your own token")
    wire = refused_wire(Outcome(made, peer, 0.1, error), namespace="nsm")
    assert (wire.place[0], wire.client) == ("own", "liar")
    assert (wire.status["state"], wire.status["reason"]) == ("Refused", str(error))
    assert refused_wire(Outcome(connection(index=2), peer, 0.1, error), namespace="nsm") is None
    assert refused_wire(Outcome(made, peer, 0.1), namespace="nsm") is None
    told = PodWire.of(made, pod_of_id(peer.spiffe_id))
    assert told.pod == ("own", "liar")


def test_a_token_that_is_none_says_nothing():
    """Whatever stands there."""
    made = connection()
    made.path.path_segments[0].token = "a.b.c"
    assert wire_of(made, namespace="nsm").place[0] == "nsm"


@pytest.mark.parametrize("index", [0, 3])
def test_only_a_clients_own_wire_is_shown(index):
    """What another node's forwarder or a function in the middle asks for is part of somebody else's wire."""
    made = connection(index=index)
    for name in ("forwarder", "nsmgr-2"):
        made.path.path_segments.add(name=name)
    assert wire_of(made, namespace="nsm") is None


@given(client=st.text(max_size=300), service=st.text(max_size=300), node=st.text(max_size=100))
def test_names_are_names_to_the_server(client, service, node):
    """Whatever a client calls itself, the object's name and label are such as the server takes."""
    made = connection(client=client)
    made.network_service = service
    name = wire_of(made, namespace="nsm").place[1]
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 253
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", label_of(node))


def test_the_same_wire_has_the_same_name_and_others_have_not():
    """After a restart of its manager an object is found again; two wires of one pod are two objects."""
    one, again, other = connection(), connection(), connection()
    again.id = again.path.path_segments[1].id = "another"
    other.path.path_segments[0].id = "c-1"
    names = [wire_of(made, namespace="nsm").place for made in (one, again, other)]
    assert names[0] == names[1] != names[2]


def test_a_state_has_its_reason():
    """Up without one, Down with one; a wire whose client shall ask again is still up."""
    found = {}
    for state in (State.UP, State.DOWN, State.REFRESH_REQUESTED, State.RESELECT_REQUESTED):
        made = connection()
        made.state = state
        status = wire_of(made, namespace="nsm").status
        found[state] = (status["state"], bool(status["reason"]))
    assert found == {
        State.UP: ("Up", False),
        State.DOWN: ("Down", True),
        State.REFRESH_REQUESTED: ("Up", True),
        State.RESELECT_REQUESTED: ("Down", True),
    }


def test_what_is_applied():
    """The owner stands there only where its uid is known; the status goes apart."""
    wire = wire_of(connection(), namespace="nsm")
    assert "ownerReferences" not in wire.applied("node", "")["metadata"]
    owned = wire.applied("node", "u")["metadata"]
    assert owned["ownerReferences"][0]["uid"] == "u"
    assert owned["labels"] == {NODE_LABEL: "node"}
    assert "status" not in wire.applied("node", "u")
    assert "spec" not in wire.applied_status()
