"""Listings that lost blanks, colons and dashes in print: never half-read, always shown corrected."""

from __future__ import annotations

import itertools
import re

import pytest

from nsmesh.model.manifest import ManifestErrors, load

GOOD = """\
apiVersion: networkservicemesh.io/v1alpha1
kind: NetworkService
metadata:
  name: secure-intranet-connectivity
spec:
  payload: IP
  matches:
    - match:
      sourceSelector:
        app: firewall
      route:
        - destination:
          destinationSelector:
            app: vpn-gateway
    - match:
      route:
        - destination:
          destinationSelector:
            app: firewall
"""
LINES = GOOD.splitlines()


def tight(number):
    """Take the blank behind the colon of one line away."""
    line = LINES[number]
    return number, re.sub(r": (\S)", r":\1", line)


TIGHT = [tight(number) for number, line in enumerate(LINES) if ": " in line]
NO_COLON = [
    (number, line[:-1])
    for number, line in enumerate(LINES)
    if line.strip(" -") in {"route:", "match:", "destination:", "spec:", "metadata:", "sourceSelector:"}
]
NO_DASH = [
    (14, "    match:"),
    (14, "      match:"),
    (16, "        destination:"),
    (16, "          destination:"),
]


def broken(*changes):
    lines = list(LINES)
    for number, line in changes:
        lines[number] = line
    return "\n".join(lines) + "\n"


def corrected(text, error):
    """Apply the lines of the diff in an error to the text that it is about."""
    lines = text.splitlines()
    for number, new in re.findall(r"^ *(\d+) \+ (.*)$", error.remedy, re.MULTILINE):
        lines[int(number) - 1] = new
    return "\n".join(lines) + "\n"


def refused(text):
    with pytest.raises(ManifestErrors) as caught:
        load(text, "listing.yaml")
    return caught.value.errors


def shown(text):
    """Return the one error that a broken listing gives; it must lead back to the good one."""
    errors = refused(text)
    assert len(errors) == 1, str(errors)
    assert load(corrected(text, errors[0]), "corrected") == load(GOOD, "good")
    return errors[0]


def test_good():
    """The listing as it was meant is read."""
    (service,) = load(GOOD, "good.yaml")
    assert service.name == "secure-intranet-connectivity"
    assert [dict(match.source_selector) for match in service.matches] == [{"app": "firewall"}, {}]


@pytest.mark.parametrize("change", TIGHT, ids=lambda change: change[1].strip())
def test_one_blank_missing(change):
    """A single missing blank is refused at its line, with that line corrected and no other."""
    error = shown(broken(change))
    assert error.line == change[0] + 1
    assert error.column == change[1].index(":") + 2 or error.column == change[1].index(":") + 1
    assert error.remedy.count(" + ") == 1
    assert "no blank behind a colon" in error.what


@pytest.mark.parametrize("change", NO_COLON, ids=lambda change: f"{change[0]} {change[1].strip()}")
def test_one_colon_missing(change):
    """A single missing colon is refused at its line, with the line corrected."""
    error = shown(broken(change))
    assert error.line == change[0] + 1
    assert "without its colon" in error.what


@pytest.mark.parametrize("change", NO_DASH, ids=lambda change: f"{change[0]} {change[1]!r}")
def test_one_dash_missing(change):
    """A single missing dash is refused at its line, at whatever depth the word stands."""
    error = shown(broken(change))
    assert error.line == change[0] + 1
    assert "without its dash" in error.what


def test_dash_missing_and_siblings_below_the_word():
    """Where the fields stand exactly below the word without dash, they move along with it."""
    text = broken((14, "    match:"), *((number, LINES[number][2:]) for number in range(15, 19)))
    assert shown(text).line == 15


def test_all_dashes_missing():
    """A list without any dash is recognised, if it has one item."""
    text = "\n".join([*LINES[:7], "    match:", *LINES[15:]]) + "\n"
    errors = refused(text)
    assert len(errors) == 1
    assert load(corrected(text, errors[0]), "corrected")[0].matches[0].routes


@pytest.mark.parametrize("dash", NO_DASH, ids=lambda change: repr(change[1]))
@pytest.mark.parametrize("colons", [[NO_COLON[number]] for number in range(len(NO_COLON))] + [[]])
def test_all_together(dash, colons):
    """All blanks, a dash and a colon missing at once: one error, all lines corrected."""
    if colons and colons[0][0] == dash[0]:
        colons, dash = [], (dash[0], dash[1].rstrip(":"))
    changes = [*TIGHT, *colons, dash]
    error = shown(broken(*changes))
    assert error.line == 1
    for number, line in changes:
        assert f"{number + 1:>4} - {line}" in error.remedy


def test_as_printed():
    """The listing as the magazine printed it: place, reasons, and the corrected lines."""
    text = broken(*TIGHT, (10, "      route"), (14, "    match:"))
    error = shown(text)
    assert (error.line, error.column) == (1, 12)
    assert str(error).startswith("listing.yaml:1:12: the document is broken YAML: no blank behind a colon")
    assert "'route' without its colon (line 11)" in error.what
    assert "'match' without its dash (line 15)" in error.what
    assert "\n    11 -       route\n    11 +       route:" in error.remedy


def test_every_pair():
    """Any two defects in different lines are refused, and corrected together."""
    defects = [*TIGHT, *NO_COLON, *NO_DASH]
    for one, other in itertools.combinations(defects, 2):
        if one[0] != other[0]:
            shown(broken(one, other))


def test_tabs():
    """Tabs in front of lines are shown as blanks."""
    error = shown(broken((3, "\tname: secure-intranet-connectivity")))
    assert "a tab in the indentation" in error.what


def test_other_documents_are_still_read():
    """A broken document does not hide the mistakes of the next, and lines count on."""
    second = GOOD.replace("name: secure", "name: other").replace("payload:", "payloda:")
    errors = refused(broken(*TIGHT) + "---\n" + second)
    assert [error.line for error in errors] == [1, 26]
    assert "did you mean 'payload'" in errors[1].remedy


def test_other_mistakes_are_still_told():
    """What is wrong besides is told too, in its line."""
    text = broken(*TIGHT, (5, "  payload:IPX"))
    errors = refused(text)
    assert [error.line for error in errors] == [1, 6]
    assert "cannot be 'IPX'" in errors[1].what


def test_what_cannot_be_corrected():
    """Where no small correction helps, the parser's complaint stays, with its place."""
    (error,) = refused("apiVersion: [\nkind:NetworkService\n")
    assert (error.line, error.column) == (1, 13)
    assert "not valid YAML" in error.what


def test_texts_that_only_look_tight_are_left_alone():
    """A line that is right as it stands is not in the diff, even if it looks like the others."""
    text = """\
apiVersion: nsmesh/v1
kind:Endpoint
metadata: {name: a}
spec:
  type: demo:Thing
  services: [a]
  options:
    list:
    - key:value
"""
    (error,) = refused(text)
    assert error.remedy.count(" + ") == 1
    assert "kind: Endpoint" in error.remedy
