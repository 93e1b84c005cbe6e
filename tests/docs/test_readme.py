"""The README works: its commands print what it shows."""

from __future__ import annotations

import pytest
from docs_console import ROOT, Shell, blocks, check, perform
from docs_mesh import scratch_shell

README = ROOT / "README.md"
DEMO = "$ make demo"


@pytest.mark.root
def test_the_demo_prints_what_is_shown():
    """``make demo`` is ``nsm demo`` behind the installation; it proves its claims and shows them."""
    (block,) = (block for block in blocks(README.read_text()) if block.lines[:1] == [DEMO])
    with scratch_shell() as shell:
        mesh = shell.environment["NSM_MESH"]
        shell.names = {word + "demo": word + mesh for word in ("mesh ", "nsmgr-", "forwarder-")}
        shell.names["make demo"] = "nsm demo"
        (step,) = block.steps()
        check(README, shell, step)


@pytest.mark.root
def test_the_quick_start():
    """All other commands, in order, in a scratch mesh."""
    with scratch_shell() as shell:
        done = perform(README, shell, leave={DEMO})
        assert [step.command for step in done if step.command.startswith("nsm")][-1] == "nsm down --purge"


def test_what_is_not_run():
    """Two blocks are left out: cloning and testing itself, and an installation from the network."""
    skipped = [block.text for block in blocks(README.read_text()) if block.skip]
    assert len(skipped) == 2
    assert "make test" in skipped[0]
    assert "pip install ." in skipped[1]


def test_make_demo_is_nsm_demo(tmp_path):
    """What the test of the demo puts in place of ``make demo`` is what the Makefile runs."""
    shell = Shell(ROOT)
    try:
        code, output = shell.run("make --no-print-directory --dry-run demo")
    finally:
        shell.close()
    assert code == 0
    assert output.rstrip().endswith("/nsm demo")
