"""The how-to of a second host works: its commands run on two hosts and print what it shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from docs_console import ROOT, Shell, blocks, check

sys.path.insert(0, str(ROOT / "tests" / "standalone"))
from host_lab import Host, wired

HOW_TO = ROOT / "docs" / "how-to" / "second-host.md"
TOKEN = re.compile(r"nsm1\.\S{70,}")


def host_of(lines: list[str], fence: int) -> str:
    """Return the host that the text above a fence (line, from 1) names last at the begin of a line."""
    for line in reversed(lines[: fence - 1]):
        if found := re.match(r"On (host\d)[,:]", line):
            return found[1]
    raise AssertionError(f"line {fence}: on which host?")


@pytest.mark.root
@pytest.mark.timeout(120)
def test_its_commands(tmp_path: Path) -> None:
    """Every command runs in order on the host that the text names, and prints what is shown."""
    text = HOW_TO.read_text()
    lines = text.splitlines()
    done = 0
    with Host("host1") as one, Host("host2") as two:
        wired(one, two)
        shells = {
            host.name: Shell(
                tmp_path,
                prefix=(*(one for one in host.enter[:-1] if one != "--wd"), f"--wd={tmp_path}", "--"),
            )
            for host in (one, two)
        }
        try:
            for block in blocks(text):
                if block.name:
                    (tmp_path / block.name).write_text(block.text)
                    continue
                host = host_of(lines, block.line)
                for step in block.steps():
                    if "$TOKEN" in step.command:
                        shells[host].run(f"TOKEN={one.token()}")
                    check(HOW_TO, shells[host], step)
                    done += 1
        finally:
            for shell in shells.values():
                shell.close()
    assert done > 12
