"""The reference pages of the endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nsmesh.endpoints.base import TYPES
from nsmesh.endpoints.options import describe_options, read_options
from nsmesh.endpoints.vpn_site import VpnSiteOptions

PAGES = Path(__file__).parents[3] / "docs" / "reference" / "endpoints"
CASES = [(f"{kind}.md", cls.Options) for kind, cls in TYPES.items()] + [("vpn-gateway.md", VpnSiteOptions)]


@pytest.mark.parametrize(("page", "cls"), CASES)
def test_a_page_has_every_option_with_its_help(page, cls):
    """One row for each: name, variable, kind, default and meaning, as the program itself says."""
    text = (PAGES / page).read_text()
    for item in describe_options(cls):
        default = f"`{item.default}`" if item.default else "-"
        row = f"| `{item.field}` | `{item.variable}` | {item.kind} | {default} | {item.help} |"
        assert row in text


@pytest.mark.parametrize("kind", TYPES)
def test_the_example_of_a_page_is_understood(kind, tmp_path, monkeypatch):
    """Its options are read without a mistake, and its type is the page's."""
    monkeypatch.chdir(tmp_path)
    Path("corporate.key.pub").write_text("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n")
    document = yaml.safe_load((PAGES / f"{kind}.md").read_text().split("```yaml\n")[1].split("```")[0])
    assert document["spec"]["type"] == kind
    options = read_options(TYPES[kind].Options, document["spec"]["options"], {}, endpoint=kind)
    for parsed in ("ruleset", "tunnel", "elements"):
        if hasattr(options, parsed):
            getattr(options, parsed)()
