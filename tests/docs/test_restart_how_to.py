"""The how-to of restart and upgrade works: its commands run in a scratch mesh and print what it shows."""

from __future__ import annotations

import pytest
from docs_console import ROOT, perform
from docs_mesh import scratch_shell


@pytest.mark.root
@pytest.mark.timeout(120)
def test_its_commands(tmp_path):
    """Every command runs in order and prints what is shown."""
    with scratch_shell(tmp_path) as shell:
        assert len(perform(ROOT / "docs" / "how-to" / "restart-and-upgrade.md", shell)) > 6
