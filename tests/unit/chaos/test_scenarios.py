"""Which scenarios there are, and how often each is wanted."""

import pytest

from nsmesh.chaos import scenarios
from nsmesh.chaos.scenarios import NAMES, SCENARIOS, SHORT, chosen
from nsmesh.core.errors import Invalid, NotFound


def test_each_has_a_name_and_a_promise_of_its_own():
    """No two share a name, and what is promised is told in words and in seconds."""
    assert len(NAMES) == len(SCENARIOS)
    for name, scenario in NAMES.items():
        assert name.startswith(scenario.name)
        assert scenario.promise.text
        assert 0 < scenario.promise.limit <= 1


def test_a_name_may_say_how_often():
    """NAME=TIMES counts for that one alone."""
    wanted = chosen(("local-nsmgr-kill", "local-alpha-kill=3"), 20)
    assert [(one.name, one.times) for one in wanted] == [("local-nsmgr-kill", 20), ("local-alpha-kill", 3)]


@pytest.mark.parametrize("text", ["local-nsmgr-kill=", "local-nsmgr-kill=0", "local-nsmgr-kill=often"])
def test_what_is_no_number_of_times_is_refused(text):
    """The error says what was given, and what to write."""
    with pytest.raises(Invalid, match=r"does not say how often.*write local-nsmgr-kill=20"):
        chosen((text,), 20)
    with pytest.raises(NotFound, match="nsm chaos list"):
        chosen(("nothing=3",), 20)


def test_without_names_it_is_all_that_can_be_measured():
    """The short form is a handful."""
    assert {one.name for one in chosen((), 1)} >= {
        one for one in NAMES if "clock" not in one and "ovs" not in one
    }
    assert [one.name for one in chosen((), 1, short=True)] == list(SHORT)


@pytest.mark.parametrize("clocks", [True, False])
@pytest.mark.parametrize("why_no_switch", ["", "ovs-vswitchd is not found in PATH"])
def test_what_cannot_be_here_is_left_out(monkeypatch, clocks, why_no_switch):
    """Those that set the clock without libfaketime, those of a switch without Open vSwitch, and no others."""
    monkeypatch.setattr(scenarios, "can_be_set", lambda: clocks)
    monkeypatch.setattr(scenarios, "lacks_switch", lambda: why_no_switch)
    left_out = NAMES.keys() - {one.name for one in chosen((), 1)}
    expected = set() if clocks else {"local-mesh-clock-ahead-1h", "local-mesh-clock-back-1h"}
    if why_no_switch:
        expected |= {name for name in NAMES if name.startswith("ovs-")}
    assert left_out == expected


def test_layouts_have_what_their_scenarios_need():
    """Somebody else is there where the wire may move, on a node of its own where a node dies."""
    gone = NAMES["remote-node-gone"].layout
    assert gone.endpoints == (("alpha", "node2"), ("beta", "node3"))
    assert NAMES["local-endpoint-dies"].layout.endpoints == (("alpha", ""), ("beta", ""))
    assert NAMES["remote-node-cut-3s"].layout.endpoints == (("alpha", "node2"),)
    assert NAMES["local-disk-full"].layout.small
    assert NAMES["local-mesh-clock-back-1h"].layout.clock
    switched = NAMES["ovs-endpoint-dies"].layout
    assert switched.options[-2:] == ("--forwarders", "ovs")
    assert switched.endpoints == (("alpha", ""), ("beta", ""))
