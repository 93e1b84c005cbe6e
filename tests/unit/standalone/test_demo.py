"""The demonstration: what there is, what it edits, and what it says at its end."""

import pytest

from nsmesh.cli.demo import _without_firewall
from nsmesh.core.errors import NotFound, Refused
from nsmesh.model.manifest import load
from nsmesh.standalone.demo import Demo, Proof, scenario, scenarios
from nsmesh.standalone.paths import MeshPaths


def test_each_scenario_is_whole():
    """A scenario has a line for the list, and manifests that can be applied."""
    assert "secure-intranet" in scenarios()
    for folder in scenarios().values():
        assert len((folder / "demo.txt").read_text().strip().splitlines()) == 1
        for name in ("service.yaml", "mesh.yaml"):
            assert load((folder / name).read_text(), name)


def test_an_unknown_scenario_gets_the_list():
    """With what there is instead."""
    with pytest.raises(NotFound, match="no demo intranet") as caught:
        scenario("intranet")
    assert "secure-intranet" in caught.value.remedy


def test_the_edit_takes_out_the_firewall_and_nothing_else(tmp_path):
    """Of the service one match is left: whoever asks is led to the gateway, as the firewall was before."""
    folder = scenario("secure-intranet")
    (before,) = load((folder / "service.yaml").read_text(), "before")
    paths = MeshPaths("m", tmp_path / "run", tmp_path)
    paths.files.mkdir()
    (after,) = load(_without_firewall(paths, folder).read_text(), "after")
    assert (after.name, after.payload) == (before.name, before.payload)
    (match,) = after.matches
    assert not match.source_selector
    assert match.routes == before.matches[0].routes


def test_the_verdict_names_what_did_not_hold(tmp_path):
    """A demo whose claims hold says nothing more; else it fails, with all those that did not."""
    demo = Demo(MeshPaths("m", tmp_path, tmp_path), tmp_path, print, print)
    demo.proofs = [Proof("pings", holds=True, seen="")]
    demo.verdict()
    demo.proofs += [Proof(claim, holds=False, seen="") for claim in ("pages", "secrets")]
    with pytest.raises(Refused, match="2 claims did not hold: pages; secrets"):
        demo.verdict()
