"""What the rows of a table come to, and their order."""

from nsmesh.chaos import publishing, summary

MARKS = "".join(f"<!-- {part}: measured -->\n<!-- {part}: end -->\n" for part in ("chaos summary", "chaos"))


def row(name, situation="stream", **given):
    """Return a row of ``nsm chaos run``."""
    known = {"scenario": name, "situation": situation, "repetitions": 20, "sent": 9, "lost": 0}
    known |= {"longest_gap_ms": 2.0, "recovery_p50_ms": 50.0, "recovery_p99_ms": 60.0, "not_recovered": 0}
    return {**known, "changed": [], "leaks": [], "promised": "all", "kept": True, **given}


def cells(text):
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_a_line_for_each_kind_of_fault():
    """One, two and all of the processes are apart, so are one node and several; the slowest counts."""
    text = publishing.table(
        [
            row("local-nsmgr-kill", recovery_p50_ms=99.4, recovery_p99_ms=1234.0, lost=1_000),
            row("local-alpha-kill", "idle", repetitions=1_980, kept=False),
            row("remote-alpha-kill", recovery_p50_ms=None, recovery_p99_ms=None, not_recovered=20),
            row("local-nsmgr-forwarder-kill"),
            row("local-endpoints-dies"),
            row("local-disk-full", recovery_p50_ms=0.6),
            row("ovs-switch-kill"),
        ],
        1,
    )
    assert cells(summary.table(text)) == [
        ["kill -9, one", "local", "2, 2", "2,000", "1,000", "99 ms", "1234 ms", "1 of 2"],
        ["kill -9, one", "remote", "1, 1", "20", "0", "-", "-", "all"],
        ["kill -9, two", "local", "1, 1", "20", "0", "50 ms", "60 ms", "all"],
        ["dies with its namespace, all", "local", "1, 1", "20", "0", "50 ms", "60 ms", "all"],
        ["disk full", "local", "1, 1", "20", "0", "1 ms", "60 ms", "all"],
        ["kill -9, two", "ovs", "1, 1", "20", "0", "50 ms", "60 ms", "all"],
    ]


def test_rows_stand_by_scenario_then_by_situation():
    """Whatever was measured first; what is not in the list comes last."""
    names = [
        ("gone", "idle"),
        ("local-disk-full", "idle"),
        ("local-nsmgr-kill", "stream"),
        ("local-nsmgr-kill", "idle"),
    ]
    text = summary.in_order(publishing.table([row(*name) for name in names], 1))
    assert [tuple(line[:2]) for line in cells(text)] == [names[3], names[2], names[1], names[0]]


def test_the_summary_follows_its_table(tmp_path):
    """Rows that were measured anew count in it, beside those that stay."""
    file = tmp_path / "doc.md"
    file.write_text(MARKS)
    publishing.update(file, "Monday.", [row("local-nsmgr-kill"), row("local-disk-full")])
    publishing.update(file, "Tuesday.", [row("local-nsmgr-kill", lost=7, kept=False)])
    text = file.read_text().partition("<!-- chaos summary: end -->")[0]
    assert [(line[0], line[4], line[7]) for line in cells(text)] == [
        ("kill -9, one", "7", "0 of 1"),
        ("disk full", "0", "all"),
    ]
