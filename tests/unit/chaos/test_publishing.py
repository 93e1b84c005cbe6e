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
    """Some scenarios replace their own rows where they stand; new ones come last; the rest is as it was."""
    file = tmp_path / "doc.md"
    file.write_text("before\n<!-- chaos: measured -->\n<!-- chaos: end -->\nafter\n")
    publishing.update(file, "Monday.", [row("a"), row("b"), row("a", "idle")])
    first = file.read_text()
    assert "\nMonday.\n\n| scenario |" in first
    publishing.update(file, "Tuesday.", [row("a", sent=7), row("c")])
    old, new = first.splitlines(), file.read_text().splitlines()
    rows = [line for line in new if line.startswith("|")]
    assert rows[:2] == [line for line in old if line.startswith("|")][:2]
    assert [line.split(" | ")[:4] for line in rows[2:]] == [
        ["| a", "stream", "1", "7"],
        ["| b", "stream", "1", "5"],
        ["| a", "idle", "1", "5"],
        ["| c", "stream", "1", "5"],
    ]
    notes = [line for line in new if "day." in line]
    assert notes == [
        "Monday.",
        "Tuesday. So were measured, later than the others: a (stream), c (stream).",
    ]
    assert (new[0], new[-1]) == ("before", "after")


def test_each_row_has_one_heading(tmp_path):
    """What is measured a third time is named with the last time alone; who measures all begins anew."""
    file = tmp_path / "doc.md"
    file.write_text("<!-- chaos: measured -->\n<!-- chaos: end -->\n")
    publishing.update(file, "Monday.", [row("a"), row("b"), row("c")])
    publishing.update(file, "Tuesday.", [row("a"), row("b")])
    publishing.update(file, "Wednesday.", [row("a")])
    notes = [line.partition(" So were")[::2] for line in file.read_text().splitlines() if "day." in line]
    assert [(day, rest.partition(": ")[2]) for day, rest in notes] == [
        ("Monday.", ""),
        ("Tuesday.", "b (stream)."),
        ("Wednesday.", "a (stream)."),
    ]
    publishing.update(file, "Thursday.", [row("a"), row("b")])
    assert "Tuesday" not in file.read_text()
    publishing.update(file, "Friday.", [row("c"), row("b"), row("a")])
    assert [line for line in file.read_text().splitlines() if "day." in line] == ["Friday."]
