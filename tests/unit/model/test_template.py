"""Templates in selectors: the same text as Go's text/template gives."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.template import render

DATA = json.loads((Path(__file__).parents[2] / "data" / "go-templates.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(len(DATA["labels"])))
def test_as_go(number):
    """Each recorded template gives what Go gave, for a set of labels."""
    labels = DATA["labels"][number]
    wrong = [
        (template, text, render(template, labels))
        for template, labels_number, text in DATA["rows"]
        if labels_number == number and render(template, labels) != text
    ]
    assert wrong == []


@given(
    st.text(st.sampled_from("{}.$|()abn\"`'=:,-+/*% 012\n"), max_size=30).map(
        lambda text: "{{" + text + "}}"
    ),
    st.dictionaries(st.sampled_from("abn"), st.text(max_size=5)),
)
def test_any_text(text, labels):
    """Any text is rendered or stands for itself; nothing is raised."""
    assert isinstance(render(text, labels), str)


@pytest.mark.parametrize(
    "text",
    [
        "{{range 1000000000}}x{{end}}",
        "{{range 9000}}{{range 9000}}{{end}}{{end}}",
        '{{printf "%999999999d" 1}}',
        "{{" + "(" * 5000 + ".a" + ")" * 5000 + "}}",
        "{{if .a}}" * 5000,
        "{{if .a}}" + "{{else if .a}}" * 5000 + "{{end}}",
        "{{" * 50000,
        "{{.a}}" * 20000,
        "{{" + "/*" * 30000,
        "{{" + '"' * 30001,
    ],
)
def test_bombs(text):
    """A template that would run, grow or nest without measure stands for itself, at once."""
    begin = time.process_time()
    assert render(text, {"a": "x" * 60}) == text
    assert time.process_time() - begin < 2
