"""The reference pages say what the code does."""

from __future__ import annotations

import copy
import importlib.util
import re
import sys

import pytest
import yaml
from docs_console import ROOT, blocks

from nsmesh.model import manifest

PAGES = ROOT / "docs" / "reference"
UNKNOWN = "qqqqqqqq"
KUBERNETES = {
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
}
KUBERNETES |= {
    "deletionGracePeriodSeconds",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "selfLink",
    "status",
}
TOP = {"apiVersion", "kind", "metadata", "spec"}

MANIFESTS = (PAGES / "manifests.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", MANIFESTS, re.MULTILINE | re.DOTALL))
EXAMPLES = [(title, yaml.safe_load(block.text)) for title in SECTIONS for block in blocks(SECTIONS[title])]


def test_generated_pages_are_current(capsys, monkeypatch):
    """What tools/reference.py writes from the code is what is in docs; if not, run it."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    spec = importlib.util.spec_from_file_location("reference_tool", ROOT / "tools" / "reference.py")
    tool = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    stale = tool.main(["--check"])
    assert not stale, f"run: python tools/reference.py\n{capsys.readouterr().out}"


@pytest.mark.parametrize(("title", "example"), EXAMPLES)
def test_an_example_is_understood(title, example):
    """Each example loads as one document of its section's kind, and comes back as an equal one."""
    (document,) = manifest.load(yaml.safe_dump(example), title)
    assert manifest.kind_of(document) == title.partition(" ")[0]
    (again,) = manifest.load(yaml.safe_dump(manifest.dump(document)), title)
    assert again == document


@pytest.mark.parametrize("title", SECTIONS)
def test_the_table_has_every_field(title):
    """The fields that a reader knows, asked for by one that it does not know, are those of the table."""
    rows = re.findall(r"^\| (`.+?`) \|", SECTIONS[title], re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(.+?)`", row)}
    known: set[str] = set()
    for example in (example for of, example in EXAMPLES if of == title):
        for path in mappings(example):
            known |= {f"{dotted(path)}.{name}".lstrip(".") for name in fields_known_at(example, path)}
    # what is told in one row: free keys by service, times
    told = re.compile(
        r"spec\.network_service_labels\..+|spec\.\w+_time\..+|spec\.matches\[\]\.(route\[\]\.destination|match)\..+"
    )
    assert {name for name in known if not told.fullmatch(name)} - TOP == listed


def mappings(node, path=()):
    """Yield the path of each mapping in a document."""
    if isinstance(node, dict):
        yield path
        for key, value in node.items():
            yield from mappings(value, (*path, key))
    elif isinstance(node, list):
        for number, item in enumerate(node):
            yield from mappings(item, (*path, number))


def fields_known_at(example, path):
    """Return the fields that are known at a path; none where keys are free."""
    changed = copy.deepcopy(example)
    place = changed
    for step in path:
        place = place[step]
    place[UNKNOWN] = "x"
    try:
        manifest.load(yaml.safe_dump(changed), "changed")
    except manifest.ManifestErrors as errors:
        found = re.search(rf"unknown field '{UNKNOWN}'.*the fields here are: ([\w, ]+)", str(errors))
        return set(found[1].split(", ")) - KUBERNETES if found else set()
    return set()


def dotted(path):
    """Return a path as the page writes it."""
    return ".".join(map(str, path)).replace(".0", "[]").replace(".1", "[]")
