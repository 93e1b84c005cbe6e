"""The path of a connection: the rules of entering and leaving, and their invariants."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Path, PathSegment
from nsmesh.model.path import PathError, closable, enter, leave


def counter():
    numbers = itertools.count()
    return lambda: f"new-{next(numbers)}"


def connection(own, index, *segments):
    return Connection(
        id=own,
        path=Path(index=index, path_segments=[PathSegment(name=name, id=key) for name, key in segments]),
    )


def ids(message):
    return [(segment.name, segment.id) for segment in message.path.path_segments]


def test_an_empty_path_begins_with_its_sender():
    """A connection without a path gets its own segment, under its own id or a new one."""
    one = Connection(id="nsc-0")
    enter(one, "nsc", counter())
    assert (one.id, one.path.index, ids(one)) == ("nsc-0", 0, [("nsc", "nsc-0")])
    other = Connection()
    enter(other, "nsc", counter())
    assert (other.id, ids(other)) == ("new-0", [("nsc", "new-0")])


def test_the_next_process_appends_itself():
    """Behind the caller's segment comes a new one, and the connection takes its id."""
    one = connection("nsc-0", 0, ("nsc", "nsc-0"))
    entered = enter(one, "mgr", counter())
    assert (one.id, one.path.index, ids(one)) == ("new-0", 1, [("nsc", "nsc-0"), ("mgr", "new-0")])
    leave(one, entered)
    assert (one.id, one.path.index) == ("nsc-0", 0)
    assert len(one.path.path_segments) == 2


def test_a_refresh_finds_its_segment_again():
    """A segment of our name keeps its id and everything else."""
    one = connection("nsc-0", 0, ("nsc", "nsc-0"), ("mgr", "m"), ("nse", "e"))
    one.path.path_segments[1].token = "t"
    enter(one, "mgr", counter())
    assert (one.id, one.path.index) == ("m", 1)
    assert one.path.path_segments[1].token == "t"
    assert ids(one)[2] == ("nse", "e")


def test_a_segment_of_somebody_else_is_taken_over_under_a_new_id():
    """What another process left at our place gets a new name, a new id, and no figures of another's wire."""
    one = connection("nsc-0", 0, ("nsc", "nsc-0"), ("old", "o"), ("nse", "e"))
    one.path.path_segments[1].metrics["client_interface"] = "KERNEL/of-old"
    enter(one, "mgr", counter())
    assert ids(one) == [("nsc", "nsc-0"), ("mgr", "new-0"), ("nse", "e")]
    assert not one.path.path_segments[1].metrics


@pytest.mark.parametrize("index", [1, 7])
def test_an_index_behind_the_segments_is_refused(index):
    """The text is the field's."""
    one = connection("a", index, ("probe", "a"))
    before = copy_of(one)
    with pytest.raises(
        PathError, match=rf"^Path.Index\+1=={index + 1} should be less or equal len\(Path.PathSegments\)==1$"
    ):
        enter(one, "mgr", counter())
    assert one == before


@pytest.mark.parametrize(("own", "segment"), [("other", "probe-59"), ("", "probe-b6")])
def test_an_id_that_is_not_the_segments_is_refused(own, segment):
    """The text is the field's, and nothing is changed."""
    one = connection(own, 0, ("probe", segment))
    before = copy_of(one)
    with pytest.raises(
        PathError, match=f"^Current PathSegment.Id=={segment} should be equal Connection.Id=={own}$"
    ):
        enter(one, "mgr", counter())
    assert one == before


def test_an_empty_id_and_an_empty_segment_id_agree():
    """As in the field, a caller may do without an id as long as it does so twice."""
    one = connection("", 0, ("probe", ""))
    enter(one, "mgr", counter())
    assert one.id == "new-0"


def test_an_answer_with_another_head_is_refused():
    """Cut, exchanged and missing segments in front are seen; what stands behind is free."""
    one = connection("nsc-0", 0, ("nsc", "nsc-0"))
    entered = enter(one, "mgr", counter())
    leave(copy_of(one), entered)
    grown = copy_of(one)
    grown.path.path_segments.add(name="nse", id="e")
    leave(grown, entered)
    for bent in (
        Connection(id="x"),
        connection("new-0", 0, ("mgr", "new-0")),
        connection("new-0", 1, ("nsc", "other"), ("mgr", "new-0")),
        connection("new-0", 1, ("mgr", "new-0"), ("nsc", "nsc-0")),
    ):
        with pytest.raises(PathError, match="should begin with"):
            leave(bent, entered)


NAMES = st.lists(st.sampled_from(["nsc", "mgr", "fwd", "nse", "fw"]), min_size=1, max_size=6).map(
    lambda names: [f"{name}{number}" for number, name in enumerate(names)]
)


@given(NAMES, st.integers(min_value=1, max_value=3), st.booleans())
def test_a_journey_there_and_back(names, rounds, halves):
    """Through any chain of processes, as often as it is refreshed, and with one or two halves each.

    Each process finds its own id again in each round, the second half of a process changes nothing, every
    caller gets its own id and index back, and the whole list of segments comes home in order.
    """
    new_id = counter()
    one = Connection(id="first")
    seen = {}
    for _ in range(rounds):
        entries = []
        for position, name in enumerate(names):
            entries.append((one.id, one.path.index, enter(one, name, new_id)))
            assert (one.path.index, seen.setdefault(name, one.id)) == (position, one.id)
            if halves:
                before = copy_of(one)
                entries.append((one.id, one.path.index, enter(one, name, new_id)))
                assert one == before
        for own, index, entered in reversed(entries):
            leave(one, entered)
            assert (one.id, one.path.index) == (own or seen[names[0]], index)
        assert [segment.name for segment in one.path.path_segments] == names
        assert [segment.id for segment in one.path.path_segments] == [seen[name] for name in names]
        assert len(set(seen.values())) == len(names)


@given(NAMES, st.integers(min_value=0, max_value=5), st.sampled_from(["mgr9", "nse9"]))
def test_segments_are_never_dropped_or_reordered(names, index, name):
    """Entering touches no segment but the one behind the caller's, and drops none."""
    one = connection("", min(index, len(names) - 1), *((part, f"id-{part}") for part in names))
    one.id = one.path.path_segments[one.path.index].id
    before = ids(one)
    enter(one, name, counter())
    own = one.path.index
    assert ids(one)[:own] == before[:own]
    assert ids(one)[own + 1 :] == before[own + 1 :]
    assert ids(one)[own] == (name, one.id)


def test_a_bent_answer_can_be_closed():
    """Id, index and head of the path are those asked with; the tail is the answer's where it fits."""
    asked = Connection(id="fwd-1", path=Path(index=2))
    asked.path.path_segments.extend(PathSegment(name=name, id=f"{name}-1") for name in ("nsc", "mgr", "fwd"))
    answer = copy_of(asked)
    answer.path.path_segments.add(name="nse", id="nse-1")
    answer.path.index, answer.id = 3, "nse-1"
    found = closable(answer, asked)
    assert (found.id, found.path.index) == ("fwd-1", 2)
    assert [one.id for one in found.path.path_segments] == ["nsc-1", "mgr-1", "fwd-1", "nse-1"]
    answer.ClearField("path")
    assert closable(answer, asked).path == asked.path


def test_a_process_of_another_name_learns_whose_place_it_has():
    """The id that stood there before is told; nothing is told where there was nobody, or the same name."""
    made = connection("mgr-1", 0, ("mgr", "mgr-1"), ("fwd", "fwd-1"), ("nse", "nse-1"))
    entered = enter(copy_of(made), "fwd-2", counter())
    assert entered.replaced == "fwd-1"
    assert enter(copy_of(made), "fwd", counter()).replaced == ""
    del made.path.path_segments[1:]
    assert enter(made, "fwd-2", counter()).replaced == ""


def test_what_stands_behind_a_bent_head_is_kept():
    """It is all that is known of the next hop's own segment: by it the connection can be closed there."""
    asked = Connection(id="b", path=Path(index=1, path_segments=[PathSegment(id="a"), PathSegment(id="b")]))
    answer = Connection(id="b", path=Path(path_segments=[PathSegment(id=key) for key in "xbcd"]))
    found = closable(answer, asked)
    assert [segment.id for segment in found.path.path_segments] == ["a", "b", "c", "d"]
    assert found.path.index == 1
