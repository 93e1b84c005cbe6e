"""Exceptions from the rules have a reason beside them, which the next reader can weigh."""

import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "bench", "tools", "examples")
REASONED = re.compile(r"noqa: [A-Z]+\d+(, [A-Z]+\d+)* - \S.*")


def comments():
    """Yield file, line and text of every comment with an exception in it."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name.endswith("_pb2.py"):
                continue  # generated
            with tokenize.open(path) as lines:
                for token in tokenize.generate_tokens(lines.readline):
                    if token.type == tokenize.COMMENT and "noqa" in token.string:
                        yield f"{path.relative_to(ROOT)}:{token.start[0]}", token.string


def test_each_exception_says_why():
    """``# noqa`` names its rule, and a reason after a dash."""
    found = dict(comments())
    assert found
    assert [place for place, text in found.items() if not REASONED.search(text)] == []


def test_each_rule_that_is_left_out_says_why():
    """In the linter's settings, a line that leaves rules out ends with a comment."""
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^ignore = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    section = text.partition("[tool.ruff.lint.per-file-ignores]\n")[2].partition("\n[")[0]
    assert lists
    assert section
    lines = [line for block in (*lists, section) for line in block.splitlines()]
    wanted = [line for line in lines if re.search(r'"[A-Z]+\d*"', line)]
    assert len(wanted) > 20
    assert [line for line in wanted if "#" not in line] == []
