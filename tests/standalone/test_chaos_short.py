"""The short form of chaos: what is promised without a time holds, whatever the machine does besides."""

import json

import pytest
from mesh_lab import nsm

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


def test_the_short_form(tmp_path):
    """No packet is lost, nothing has changed, nothing leaks, and new Requests are served at last."""
    file = tmp_path / "chaos.json"
    nsm("chaos", "run", "--short", "--json", str(file))
    rows = json.loads(file.read_text())
    assert len(rows) == 3
    for row in rows:
        assert row["sent"] > 1000
        seen = (row["lost"], row["changed"], row["leaks"], row["not_recovered"])
        assert seen == (0, [], [], 0), row


def test_an_unknown_scenario_is_refused():
    """The error says where the names are."""
    nsm("chaos", "run", "nothing").fails("there is no scenario nothing", "nsm chaos list")
