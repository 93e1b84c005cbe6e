"""The path header of registry calls, as text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.messages import NetworkService
from nsmesh.model.registry_path import RegistryPath, read_registry_path, set_path_id


@given(st.integers(0, 2**32 - 1), st.lists(st.text(max_size=20), max_size=5))
def test_a_path_survives_its_text(index, tokens):
    """Text and back changes nothing, and the text is ASCII, as metadata must be."""
    text = RegistryPath(index, tokens).text()
    assert text.isascii()
    assert read_registry_path(text) == RegistryPath(index, tokens)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "null",
        '{"Index":0,"PathSegments":null}',
        '{"index":0,"pathsegments":[]}',
        '{"INDEX":null}',
        '{"Other":1}',
    ],
)
def test_an_empty_path_has_many_forms(text):
    """All that the Go implementation takes for empty is empty."""
    assert read_registry_path(text) == RegistryPath()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "1",
        '{"Index":-1}',
        '{"Index":4294967296}',
        '{"Index":true}',
        '{"Index":1.5}',
        '{"Index":"1"}',
        '{"PathSegments":{}}',
        '{"PathSegments":[1]}',
        '{"PathSegments":[{"token":1}]}',
        '{"Index":NaN}',
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_no_path_is_refused(text):
    """Everything else is one kind of error, however deep or long."""
    with pytest.raises(ValueError):
        read_registry_path(text)


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["Index", "PathSegments", "token"]), x),
    ).map(json.dumps)
)
def test_any_text_is_a_path_or_a_clean_refusal(text):
    """The parser never fails in another way."""
    try:
        path = read_registry_path(text)
    except ValueError:
        return
    assert path.index >= 0


def test_a_path_grows_by_one_segment_per_hop():
    """Client to manager to registry, and the same path replayed: as the contract has it."""
    path = read_registry_path('{"Index":2,"PathSegments":[]}')
    assert path.enter("nse", "nsmgr") == 0
    assert path == RegistryPath(1, ["nse", "nsmgr"])
    assert path.enter("nsmgr'", "registry") == 1
    assert path == RegistryPath(2, ["nse", "nsmgr'", "registry"])
    path.index = 0
    assert path.enter("nse2", "nsmgr2") == 0
    assert path == RegistryPath(1, ["nse2", "nsmgr2", "registry"])
    with pytest.raises(ValueError):
        RegistryPath(1, ["one"]).enter("a", "b")


def test_path_ids_are_padded():
    """An id is written at its place also where those before it are missing."""
    entry = NetworkService(path_ids=["a"])
    set_path_id(entry.path_ids, 2, "c")
    set_path_id(entry.path_ids, 0, "b")
    assert list(entry.path_ids) == ["b", "", "c"]
