"""What was connected by hand, kept on disk."""

import os
from dataclasses import replace

import pytest

from nsmesh.core.errors import NotFound
from nsmesh.standalone.connects import Connects

OURS = f"/proc/{os.getpid()}/ns/net"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "connects.json"


def test_wires_come_back_in_their_order(path):
    """A client is one entry with all its wires, and is the same after a new start."""
    connects = Connects(path)
    connects.put("a", OURS, os.getpid(), "", "kernel://one")
    connects.put("b", OURS, os.getpid(), "node2", "kernel://two")
    connects.put("a", OURS, os.getpid(), "", "kernel://three")
    assert list(Connects(path)) == list(connects)
    assert [(item.client, item.urls) for item in connects] == [
        ("a", ("kernel://one", "kernel://three")),
        ("b", ("kernel://two",)),
    ]


def test_forgetting_one_wire_or_all(path):
    """A client goes with its last wire, or at once; what is not known is forgotten already."""
    connects = Connects(path)
    for url in ("kernel://one", "kernel://two"):
        connects.put("a", OURS, os.getpid(), "", url)
    connects.drop("a", "kernel://one")
    assert [item.urls for item in Connects(path)] == [("kernel://two",)]
    connects.drop("a", "kernel://two")
    assert list(Connects(path)) == []
    connects.drop("a")


@pytest.mark.parametrize(
    "text", ["{", "[{}]", '[{"client": "a", "urls": [], "identity": [], "x": 1}]', "[1]"]
)
def test_a_damaged_file_is_an_empty_one(path, text):
    """It keeps nobody from starting."""
    path.write_text(text)
    assert list(Connects(path)) == []


def test_a_place_that_is_gone_is_not_kept(path):
    """Its wires went with it."""
    connects = Connects(path)
    connects.put("a", "/run/netns/there-is-no-such-namespace", 0, "", "kernel://one")
    assert list(connects) == []


@pytest.mark.parametrize("changed", [{"ticks": 1}, {"boot": "another"}, {"identity": (0, 0)}])
def test_a_place_is_known_again_only_if_it_is_the_same(path, changed):
    """A pid or an inode that somebody else has now, or of another boot, is not what was connected."""
    connects = Connects(path)
    connects.put("a", OURS, os.getpid(), "", "kernel://one")
    (connect,) = connects
    connect.check()
    with pytest.raises(NotFound, match="another one now"):
        replace(connect, **changed).check()
