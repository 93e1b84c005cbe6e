"""Which connections a monitor asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.messages import Connection, MonitorScopeSelector, Path, PathSegment
from nsmesh.model.selector import selected, speaks_of

SEGMENTS = [("probe", "p"), ("nsmgr", "m"), ("forwarder", "f"), ("nse", "e")]


def connection(index=1):
    return Connection(
        network_service="icmp-responder",
        path=Path(
            index=index, path_segments=[PathSegment(name=name, id=key, token="t") for name, key in SEGMENTS]
        ),
    )


def selector(*segments, services=()):
    return MonitorScopeSelector(
        path_segments=[PathSegment(name=name, id=key) for name, key in segments], network_services=services
    )


@pytest.mark.parametrize(
    ("wanted", "result"),
    [
        (selector(), True),
        (selector(("probe", "")), True),
        (selector(("", "m")), True),
        (selector(("nsmgr", "m")), True),
        (selector(("", "nobody")), False),
        (selector(("nsmgr", "p")), False),
        (selector(("probe", ""), ("nsmgr", "")), True),
        (selector(("probe", ""), ("forwarder", "")), False),
        (selector(("nsmgr", ""), ("", ""), ("nse", "e")), True),
        (selector(("", ""), ("", ""), ("", ""), ("", "")), True),
        (selector(("", ""), ("", ""), ("", ""), ("", ""), ("", "")), False),
        (selector(services=["icmp-responder", "x"]), True),
        (selector(services=["x"]), False),
        (selector(("nsmgr", ""), services=["x"]), False),
        (MonitorScopeSelector(path_segments=[PathSegment(token="t")]), True),
        (MonitorScopeSelector(path_segments=[PathSegment(token="u")]), False),
    ],
)
def test_selection(wanted, result):
    """A contiguous run of segments with wildcards, and any of the services."""
    assert selected(wanted, connection()) is result


@given(
    st.integers(min_value=0, max_value=3),
    st.integers(min_value=1, max_value=4),
    st.lists(st.sampled_from(["name", "id", "token"]), max_size=3),
)
def test_any_run_with_any_wildcards_is_selected(start, length, blanks):
    """Each run of a connection's own segments selects it, whatever is left out of them."""
    one = connection()
    wanted = MonitorScopeSelector(path_segments=one.path.path_segments[start : start + length])
    for segment in wanted.path_segments:
        for blank in blanks:
            segment.ClearField(blank)
    assert selected(wanted, one)


def test_a_connection_without_a_path_matches_only_without_segments():
    """No segments, nothing to match."""
    assert selected(selector(), Connection())
    assert not selected(selector(("a", "")), Connection())


@pytest.mark.parametrize(
    ("name", "index", "result"),
    [
        ("nsmgr", 2, ("m", 1)),
        ("nsmgr", 1, ("m", 1)),
        ("nsmgr", 3, None),
        ("nsmgr", 0, None),
        ("probe", 1, ("p", 0)),
        ("nse", 9, None),
    ],
)
def test_events_speak_of_the_consumer_or_its_next_hop(name, index, result):
    """Accepted are events whose index is the consumer's own or one more."""
    assert speaks_of(connection(index), name) == result
    assert speaks_of(Connection(), name) is None
