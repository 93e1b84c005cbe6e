"""Asking again: whose word counts in which field."""

from nsmesh.model.copying import copy_of
from nsmesh.model.merge import first_wish, merged, next_wish
from nsmesh.model.messages import Connection, Path, PathSegment, State


def segment(name, token=""):
    return PathSegment(name=name, id=name, token=token)


ASKED = Connection(id="nsc", network_service="s", path=Path(path_segments=[segment("nsc")]))
ANSWERED = copy_of(ASKED)
ANSWERED.network_service_endpoint_name = "nse"
ANSWERED.payload = "IP"
ANSWERED.labels["nodeName"] = "n1"
ANSWERED.mechanism.type = "KERNEL"
ANSWERED.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
ANSWERED.path.path_segments.extend([segment("mgr", "m"), segment("nse", "e")])


def test_repeating_either_message_means_go_on():
    """The first Request again, and the answer sent back, both ask for what was answered."""
    assert merged(ASKED, ASKED, ANSWERED) == ANSWERED
    assert merged(ANSWERED, ASKED, ANSWERED) == ANSWERED


def test_a_wish_is_enough():
    """Merging looks at nothing of what was asked that a wish leaves out."""
    changed = copy_of(ANSWERED)
    changed.labels["app"] = "x"
    reselecting = copy_of(ASKED)
    reselecting.state = State.RESELECT_REQUESTED
    for wanted in (ASKED, ANSWERED, changed, reselecting):
        assert merged(wanted, first_wish(ASKED), ANSWERED) == merged(wanted, ASKED, ANSWERED)
    assert not first_wish(ANSWERED).path.path_segments


def test_what_the_user_changed_counts():
    """Service, endpoint, labels, context and mechanism that are neither asked nor answered are new wishes."""
    wanted = copy_of(ASKED)
    wanted.network_service = "t"
    wanted.network_service_endpoint_name = "other"
    wanted.labels["app"] = "x"
    wanted.context.MTU = 9000
    wanted.mechanism.type = "MEMIF"
    result = merged(wanted, ASKED, ANSWERED)
    assert result.network_service == "t"
    assert result.network_service_endpoint_name == "other"
    assert dict(result.labels) == {"app": "x"}
    assert result.context.MTU == 9000
    assert result.mechanism.type == "MEMIF"
    assert result.payload == "IP"


def test_the_head_of_the_path_is_the_callers_and_the_tail_the_answers():
    """New tokens in front are taken, what stands behind us is what was answered."""
    wanted = copy_of(ASKED)
    wanted.path.path_segments[0].token = "new"
    wanted.path.path_segments.append(segment("stale"))
    result = merged(wanted, ASKED, ANSWERED)
    assert [(part.name, part.token) for part in result.path.path_segments] == [
        ("nsc", "new"),
        ("mgr", "m"),
        ("nse", "e"),
    ]
    assert result.path.index == 0


def test_a_reselect_frees_endpoint_and_mechanism():
    """Also when the first Request named no endpoint either."""
    wanted = copy_of(ASKED)
    wanted.state = State.RESELECT_REQUESTED
    result = merged(wanted, ASKED, ANSWERED)
    assert result.network_service_endpoint_name == ""
    assert not result.HasField("mechanism")
    assert result.state == State.RESELECT_REQUESTED
    assert result.context == ANSWERED.context
    assert len(result.path.path_segments) == 3


def test_nothing_given_is_changed():
    """The three messages stay as they were."""
    wanted, asked, answered = copy_of(ASKED), copy_of(ASKED), copy_of(ANSWERED)
    merged(wanted, asked, answered).labels["x"] = "y"
    assert (wanted, asked, answered) == (ASKED, ASKED, ANSWERED)


def test_a_wish_outlives_what_was_answered_to_it():
    """Going on, in whichever words, leaves it; only what the user changes is changed in it."""
    wish = first_wish(ASKED)
    assert next_wish(ASKED, wish, ANSWERED) == wish
    assert next_wish(ANSWERED, wish, ANSWERED) == wish
    changed = copy_of(ANSWERED)
    changed.labels["app"] = "x"
    changed.payload = "ETHERNET"
    second = next_wish(changed, wish, ANSWERED)
    assert dict(second.labels) == {"app": "x", "nodeName": "n1"}
    assert second.payload == "ETHERNET"
    assert second.context == wish.context
    assert second.network_service_endpoint_name == ""


def test_a_reselect_asks_for_the_payload_that_was_wished():
    """The service's may be another by now; a payload that the user names, now or before, is kept."""
    reselect = copy_of(ANSWERED)
    reselect.state = State.RESELECT_REQUESTED
    assert merged(reselect, first_wish(ASKED), ANSWERED).payload == ""
    named = copy_of(ASKED)
    named.payload = "IP"
    assert merged(reselect, first_wish(named), ANSWERED).payload == "IP"
    reselect.payload = "ETHERNET"
    assert merged(reselect, first_wish(ASKED), ANSWERED).payload == "ETHERNET"


def test_a_restored_connection_wishes_no_payload():
    """Its path goes on behind the client: what it carries is the service's."""
    assert first_wish(ANSWERED).payload == ""
    first = Connection(payload="IP", path=Path(path_segments=[segment("nsc")]))
    assert first_wish(first).payload == "IP"
