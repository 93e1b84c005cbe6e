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
