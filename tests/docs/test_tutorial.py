"""The tutorial works: its files are those of the example, its commands print what it shows."""

from __future__ import annotations

import pytest
from docs_console import ROOT, blocks, perform
from docs_mesh import scratch_shell

TUTORIAL = ROOT / "docs" / "tutorial.md"
EXAMPLE = ROOT / "examples" / "hello-endpoint"
FILES = {block.name: block.text for block in blocks(TUTORIAL.read_text()) if block.name}


@pytest.mark.parametrize("name", FILES)
def test_its_files_are_those_of_the_example(name):
    """Whoever does not want to type finds the same files in examples/hello-endpoint."""
    assert FILES[name] == (EXAMPLE / name.removeprefix("hello/")).read_text()


def test_the_endpoint_is_short():
    """An endpoint of one's own takes fewer than 40 lines."""
    assert len(FILES["hello/endpoint.py"].splitlines()) < 40


@pytest.mark.root
def test_its_commands(tmp_path):
    """Every command runs in order in a scratch mesh and prints what is shown."""
    with scratch_shell(tmp_path) as shell:
        assert len(perform(TUTORIAL, shell)) > 20
