"""How a run is cut into parts that run at a time."""

from nsmesh.chaos.at_once import TOGETHER, parts
from nsmesh.chaos.scenarios import IDLE, NAMES, STREAM, chosen


def test_each_scenario_is_in_one_part():
    """All that share a part share a kind of mesh and a situation; none is lost, none is done twice."""
    wanted = {one: chosen((), 3) for one in (STREAM, IDLE)}
    found = parts(wanted)
    for part in found:
        assert len({one.scenario.layout for one in part.wanted}) == 1
        assert len(part.wanted) <= TOGETHER
    done = sorted((part.situation, one) for part in found for one in part.wanted)
    assert done == sorted((situation, one) for situation, some in wanted.items() for one in some)


def test_a_few_scenarios_keep_all_workers_busy():
    """Four of one kind and two of another, for six: one each; for a hundred no more than there are."""
    names = ("local-alpha-kill", "local-nsmgr-kill", "local-registry-kill", "local-forwarder-kill")
    wanted = {STREAM: chosen((*names, "remote-registry-kill", "remote-nsmgr-node2-kill"), 3)}
    for workers in (6, 100):
        found = parts(wanted, workers)
        assert sorted(one.scenario.name for part in found for one in part.wanted) == sorted(
            one.scenario.name for one in wanted[STREAM]
        )
        assert [len(part.wanted) for part in found] == [1] * 6


def test_the_longest_come_first():
    """A process that is stopped for half a minute twenty times is begun with."""
    names = ("local-alpha-kill", "local-disk-full", "local-nsmgr-sigstop-30s=20", "remote-alpha-kill=9")
    assert NAMES["local-nsmgr-sigstop-30s"].name in {
        one.name for one in parts({STREAM: chosen(names, 1)})[0].wanted
    }
    lengths = [part.length for part in parts({STREAM: chosen(names, 1)})]
    assert lengths == sorted(lengths, reverse=True)
