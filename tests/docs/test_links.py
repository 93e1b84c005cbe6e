"""Documents refer to what exists, and to nothing of a developer's machine."""

from __future__ import annotations

import re
import subprocess

import pytest
from docs_console import ROOT

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FOREIGN = re.compile(r"(?<![\w.])/(work|home|root|Users|mnt)/|\.claude|/tmp/(?!tutorial\b)")
HIDDEN = {".git", ".venv", ".pytest_cache", ".make", "node_modules"}


def documents():
    """Return the markdown files of the project: those under version control, or all of a source archive."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        listed = []
    found = listed or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.md")]
    return [name for name in found if not HIDDEN & set(name.split("/")) and (ROOT / name).exists()]


def without_code(text):
    """Return a document without its fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text):
    """Return the anchors of the headings of a document, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", documents())
def test_links_resolve(name):
    """Each relative link names a file or folder of the project, and a heading that is there."""
    document = ROOT / name
    for link in LINK.finditer(without_code(document.read_text())):
        target, _, anchor = (link[1] or link[2]).partition("#")
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file = (document.parent / target).resolve() if target else document
        assert file.is_relative_to(ROOT), f"{link[0]} leads out of the project"
        assert file.exists(), f"{link[0]} leads nowhere"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{link[0]}: there is no such heading"


@pytest.mark.parametrize("name", documents())
def test_no_path_of_a_machine(name):
    """No document names a folder that only its author has."""
    found = FOREIGN.search((ROOT / name).read_text())
    assert not found, f"{name} names {found[0]}"
