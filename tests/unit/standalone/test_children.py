"""The list of what a mesh made on this host."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsmesh.standalone.children import Children
from nsmesh.standalone.processes import Started

NAMES = st.sampled_from("abc")
STEPS = st.one_of(
    st.tuples(st.just("add_process"), NAMES, st.builds(Started, st.integers(1, 9), st.integers(1, 9))),
    st.tuples(
        st.sampled_from(["drop_process", "add_namespace", "drop_namespace", "add_place", "drop_place"]),
        NAMES,
    ),
)


@settings(deadline=None)  # it writes files, and others use the disk
@given(st.lists(STEPS, max_size=12))
def test_a_crash_at_any_step_finds_what_was_there(tmp_path_factory, steps):
    """After each change, whoever reads the file knows the same as whoever wrote it."""
    path = tmp_path_factory.mktemp("children") / "children.json"
    children = Children(path)
    for name, *arguments in steps:
        getattr(children, name)(*arguments)
        read = Children(path)
        assert read.processes == children.processes
        assert read.namespaces == children.namespaces
        assert read.places == children.places


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1"])
def test_a_damaged_list_is_an_empty_one(tmp_path, text):
    """It keeps nobody from starting."""
    path = tmp_path / "children.json"
    path.write_text(text)
    assert Children(path).processes == {}


def test_an_earlier_boot_left_nothing(tmp_path):
    """Pids and namespaces of another boot are somebody else's by now."""
    path = tmp_path / "children.json"
    Children(path).add_process("a", Started(7, 9))
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    assert Children(path).processes == {}


def test_a_list_that_cannot_be_written_stops_nobody(tmp_path):
    """The mesh works on with what it knows."""
    children = Children(tmp_path / "gone" / "children.json")
    children.add_namespace("a")
    assert children.namespaces == {"a"}
