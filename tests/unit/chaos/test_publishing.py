"""Parts of a document that are filled by what was measured."""

import pytest

from nsmesh.chaos import publishing
from nsmesh.core.errors import Invalid


def test_only_what_is_between_the_marks_changes(tmp_path):
    """The rest of the document stays, and a second filling replaces the first."""
    file = tmp_path / "doc.md"
    file.write_text("before\n<!-- chaos: measured -->\nold\n<!-- chaos: end -->\nafter\n")
    for text in ("first", "second"):
        publishing.write(file, publishing.TABLE, text)
    assert file.read_text() == "before\n<!-- chaos: measured -->\nsecond\n<!-- chaos: end -->\nafter\n"


def test_a_document_without_marks_is_left_alone(tmp_path):
    """The error says which lines are missing."""
    file = tmp_path / "doc.md"
    file.write_text("nothing here\n")
    with pytest.raises(Invalid, match="no place"):
        publishing.write(file, publishing.SOAK, "text")
    assert file.read_text() == "nothing here\n"


def test_a_soak_reads_well():
    """What is not as it should be is told in words; a slope that is not known is a dash."""
    row = {"process": "nsmgr", "memory_kib": [1, 2], "descriptors": [3, 4], "threads": [1, 1]}
    plain = {
        "seconds": 90.0,
        "seed": 7,
        "requests": 1200,
        "closes": 5,
        "refused": 0,
        "faults": {"SIGTERM": 2},
    }
    plain |= {"unserved": [], "silent": [], "unlevel": ["x is new"], "leaks": [], "left": []}
    text = publishing.soaked({**plain, "processes": [{**row, "slope_kib_per_minute": None}]})
    for words in (
        "1.5 minutes",
        "1,200 Requests",
        "2 times SIGTERM",
        "x is new",
        "| nsmgr | 1 → 2 | 3 → 4 |",
    ):
        assert words in text


def row(name, situation="stream", sent=5):
    """Return a row of ``nsm chaos run``."""
    return {
        "scenario": name,
        "situation": situation,
        "repetitions": 1,
        "sent": sent,
        "lost": 0,
        "longest_gap_ms": 2.0,
        "recovery_p50_ms": 50.0,
        "recovery_p99_ms": 60.0,
        "not_recovered": 0,
        "changed": [],
        "leaks": [],
        "promised": "all",
        "kept": True,
    }


def test_rows_that_were_not_measured_anew_stay(tmp_path):
    """Some scenarios replace their own rows; each row says by a number how it was measured."""
    file = tmp_path / "doc.md"
    file.write_text("before\n<!-- chaos: measured -->\n<!-- chaos: end -->\nafter\n")
    publishing.update(file, "Monday.", [row("a"), row("b"), row("a", "idle")])
    first = file.read_text()
    assert "\nRun 1: Monday.\n\n| scenario |" in first
    publishing.update(file, "Tuesday.", [row("a", sent=7), row("c")])
    old, new = first.splitlines(), file.read_text().splitlines()
    rows = [line for line in new if line.startswith("|")]
    assert rows[:2] == [line for line in old if line.startswith("|")][:2]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows[2:]]
    assert [[*row[:4], row[-1]] for row in cells] == [
        ["a", "stream", "1", "7", "2"],
        ["b", "stream", "1", "5", "1"],
        ["a", "idle", "1", "5", "1"],
        ["c", "stream", "1", "5", "2"],
    ]
    assert [line for line in new if "day." in line] == ["Run 1: Monday.", "Run 2: Tuesday."]
    assert (new[0], new[-1]) == ("before", "after")


def test_a_run_without_rows_is_told_no_more(tmp_path):
    """Who measures all that an earlier run has measured takes its place."""
    file = tmp_path / "doc.md"
    file.write_text("<!-- chaos: measured -->\n<!-- chaos: end -->\n")
    for day, names in (("Monday", "abc"), ("Tuesday", "ab"), ("Wednesday", "a"), ("Thursday", "ab")):
        publishing.update(file, f"{day}.", [row(name) for name in names])
    assert [line for line in file.read_text().splitlines() if "day." in line] == [
        "Run 1: Monday.",
        "Run 4: Thursday.",
    ]
    publishing.update(file, "Friday.", [row("c"), row("b"), row("a")])
    assert [line for line in file.read_text().splitlines() if "day." in line] == ["Run 5: Friday."]
