"""Reading YAML safely: positions, limits, and files that are hostile or broken."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.manifest import ManifestErrors, load, load_path
from nsmesh.model.manifest_errors import ManifestError
from nsmesh.model.manifest_text import Chunk, split
from nsmesh.model.manifest_yaml import Mapping, Scalar, compose

HEAD = (
    "apiVersion: nsmesh/v1\nkind: Endpoint\nmetadata: {name: a}\nspec:\n  type: firewall\n  services: [s]\n"
)


def refused(text):
    begin = time.process_time()
    with pytest.raises(ManifestErrors) as caught:
        load(text, "f.yaml")
    assert time.process_time() - begin < 3
    return caught.value.errors


def one(text):
    (error,) = refused(text)
    return error


def test_too_large():
    """10 MB are refused before they are parsed, with size and limit."""
    begin = time.process_time()
    error = one("a: b\n" * 2_000_000)
    assert time.process_time() - begin < 0.5
    assert str(error) == (
        "f.yaml: the file has 10000000 bytes; 1048576 are the most - split it into several files"
    )


def test_too_large_in_bytes():
    """The limit counts bytes, not characters."""
    assert "1200002 bytes" in one("# " + "€" * 400_000).what


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 1000,
        "a: " + "{a: " * 1000,
        "".join(f"{' ' * depth}a:\n" for depth in range(300)),
        "- " * 500_000,
        "[" * 1_000_000,
    ],
    ids=["lists", "mappings", "blocks", "dashes", "million"],
)
def test_too_deep(text):
    """Nesting is bounded, and the place is told."""
    error = one(text)
    assert "levels deep" in error.what
    assert error.line


def test_alias_bomb():
    """Aliases that would grow without measure are refused at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    error = one("\n".join(lines))
    assert "aliases written out" in error.what
    assert error.line == 5


def test_merge_bomb():
    """The same through '<<' is refused as well."""
    lines = ["a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    assert "aliases written out" in one("\n".join(lines)).what


def test_many_values():
    """A document of very many values is refused while it is read."""
    assert "more than 50000 values" in one("a: [" + "1," * 300_000 + "1]").what


def test_many_documents():
    """Very many documents are refused, and reading stops where nobody reads the mistakes any more."""
    assert "documents; 2000 are the most" in one("a: b\n---\n" * 100_000).what
    assert len(refused("a: b\n---\n" * 1500)) < 200
    assert len(refused("".join(f"apiVersion{number}: b\n" for number in range(20_000)))) < 200
    assert len(refused(HEAD + "".join(f"  servicess{number}: b\n" for number in range(20_000)))) < 200


def test_tab():
    """A tab is named as such, with its place."""
    error = one("a: b\nc:\n  d: [\n\t1]\n\te\n f:g:")
    assert (error.line, error.column) == (4, 1)
    assert "tab" in error.what


def test_aliases():
    """Aliases and merges of a sensible size work; what stands there itself wins."""
    text = HEAD + "  options:\n    a: &x {k: 1, l: 2}\n    b: *x\n    c:\n      <<: *x\n      k: 3\n"
    (endpoint,) = load(text, "f.yaml")
    assert endpoint.options == {"a": {"k": 1, "l": 2}, "b": {"k": 1, "l": 2}, "c": {"k": 3, "l": 2}}


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("a: *x", 1, 4, "anchor 'x' is not known"),
        ("a: &x [*x]", 1, 8, "contains itself"),
        ("a: 1\nb: 2\na: 3", 3, 1, "'a' is there twice"),
        ("a: {b: 1, b: 2}", 1, 11, "'b' is there twice"),
        ("a: !!python/object:os.system [x]", 1, 4, "is not allowed"),
        ("a: !mine x", 1, 4, "is not allowed"),
        ("a: b: c", 1, 5, "mapping values are not allowed"),
        ("a: 'x", 1, 4, "quoted scalar"),
        ("a: @x", 1, 4, "cannot start any token"),
        ("{a: 1", 1, 1, "not valid YAML"),
        ("? [a]\n: b", 1, 3, "cannot be a key"),
        ("yes: 1", 1, 1, "is a truth value"),
        ("null: 1", 1, 1, "key is missing"),
        ('a: "\\0"', 1, 4, "zero character"),
        ('a: "\\ud800"', 1, 4, "half a character"),
        ('a: "\\UFFFFFFFF"', 1, 1, "not valid YAML"),
        ("a: \x07", 1, 4, "U+0007"),
        ("a: b\nc: \x00", 2, 4, "U+0000"),
        ("a: \ud800", 1, 4, "U+D800"),
        ("<<: 1", 1, 1, "mappings only"),
        ("a: b\n...\nc", 3, 1, "'<document start>'"),
    ],
)
def test_broken(text, line, column, says):
    """Each kind of broken YAML has its place, a sentence and a remedy."""
    error = one(text)
    assert says in str(error)
    assert (error.line, error.column) == (line, column)
    assert error.remedy


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "---\n---\n# x\n", "null", "~", "\ufeff"])
def test_nothing(text):
    """A text without a document has none, and that is no mistake."""
    assert load(text, "f.yaml") == []


@pytest.mark.parametrize("text", ["x", "- a", "[]", "1", "''", "|\n x"])
def test_no_mapping(text):
    """A document that is no mapping is refused."""
    assert "must be a mapping" in one(text).what


def test_documents_are_independent():
    """Mistakes of all documents are told, also behind a broken one; lines count through the file."""
    text = f"a: [\n---\n{HEAD}  colour: red\n---\n{HEAD.replace('name: a', 'name: b')}---\nx: '\n"
    errors = refused(text)
    assert [error.line for error in errors] == [2, 9, 18]


def test_directives():
    """Directives and comments in front of the first document belong to it."""
    assert len(load(f"%YAML 1.1\n# hello\n---\n{HEAD}---\n{HEAD.replace('name: a', 'name: b')}", "f")) == 2


def test_json_with_tabs_and_escapes():
    """JSON is read as it comes, with tabs in front and characters in two halves."""
    text = (
        '{\n\t"apiVersion":\t"nsmesh/v1", "kind": "Endpoint", "metadata": {"name": "a"},\n'
        '\t"spec": {"type": "firewall", "services": ["s"], "labels": {"k": "\\ud83d\\ude00"}}}'
    )
    assert load(text, "f.json")[0].labels == {"k": "\U0001f600"}


def test_files(tmp_path):
    """A directory gives its manifests in the order of their names, and all mistakes of all of them."""
    (tmp_path / "b.yaml").write_text(HEAD)
    (tmp_path / "a.yml").write_text(HEAD.replace("name: a", "name: z"))
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "d.txt").write_text("no manifest")
    (tmp_path / "e.yaml").write_bytes(b"a: b\nc: \xff\n")
    (tmp_path / "f.yaml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ManifestErrors) as caught:
        load_path(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path}/c.json:1:1: apiVersion is missing")
    assert f"{tmp_path}/e.yaml:2:4: the byte 0xff is no UTF-8 - save the file in UTF-8" in lines
    assert (
        f"{tmp_path}/f.yaml: the file has 2000000 bytes; 1048576 are the most - split it into several files"
        in lines
    )
    for name in "cef":
        next(tmp_path.glob(f"{name}.*")).unlink()
    assert [document.name for document in load_path(tmp_path)] == ["z", "a"]
    assert [document.name for document in load_path(tmp_path / "b.yaml")] == ["a"]


def test_files_that_are_not_there(tmp_path):
    """A missing file, an empty directory, and an endless file are refused."""
    for path, says in (
        (tmp_path / "x", "No such file"),
        (tmp_path, "no manifest"),
        ("/dev/zero", "more than 1048576"),
    ):
        with pytest.raises(ManifestErrors, match=says):
            load_path(path)


def test_twice(tmp_path):
    """The same document in two files is refused, with the place of the first."""
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / "b.yaml").write_text(f"# comment\n{HEAD}")
    with pytest.raises(
        ManifestErrors, match=r"b\.yaml:2:1: Endpoint 'a' is described twice, first in .*a\.yaml:1 "
    ):
        load_path(tmp_path)


@given(st.text(st.sampled_from("ab:-#&*!|>'\"{}[],?%@` \n\t1~<."), max_size=60))
def test_any_text(text):
    """Any text is composed to nodes or refused with a place; nothing else happens."""
    for chunk in split(text, "f"):
        try:
            nodes = compose(chunk, "f")
        except ManifestError as error:
            place = error.line
        else:
            place = chunk.first
            assert all(node.mark.line >= chunk.first for node in nodes)
        assert place >= chunk.first


@given(st.text(max_size=200))
def test_any_file(text):
    """No text whatsoever makes the reader fail in an unplanned way."""
    error = None
    try:
        load(text, "f")
    except ManifestErrors as caught:
        error = caught
    assert error is None or error.errors


def test_positions():
    """Nodes know where they stand, and where their text stands in the line."""
    (node,) = compose(Chunk("a: b\nc:\n  - 'd'\n", 10), "f")
    assert isinstance(node, Mapping)
    assert [(key.text, key.mark.line, key.mark.column) for key, _ in node.entries] == [
        ("a", 10, 1),
        ("c", 11, 1),
    ]
    item = node.entries[1][1].items[0]
    assert isinstance(item, Scalar)
    assert (item.text, item.mark.line, item.mark.column, item.offset) == ("d", 12, 5, 1)
