"""A demonstration's claim to a mesh."""

import tempfile
from pathlib import Path

import pytest

from nsmesh.core.errors import Conflict
from nsmesh.standalone.demo_claim import Claim
from nsmesh.standalone.lock import MeshLock
from nsmesh.standalone.paths import MeshPaths


@pytest.fixture
def paths():
    with tempfile.TemporaryDirectory(prefix="nsm-", dir="/tmp") as short:  # for unix sockets
        yield MeshPaths("stage", Path(short, "run"), Path(short, "state"))


def test_a_new_mesh_is_free(paths):
    """Where nothing is, a demo begins, and nothing was left."""
    claim = Claim(paths)
    assert claim.take() is False
    assert claim.holds


def test_what_a_dead_demo_left_is_taken(paths):
    """The mark outlives the claim: the next demo has the mesh, and is told that something is left in it."""
    first = Claim(paths)
    first.take()
    paths.registry.touch()
    first.release()
    assert not first.holds
    assert Claim(paths).take() is True


def test_a_living_one_keeps_it(paths):
    """While a demo lives, a second one is refused, by name and pid, and the claim is untouched."""
    first = Claim(paths)
    first.take()
    with pytest.raises(Conflict, match=r"a demo runs in the mesh stage already \(pid \d+\)"):
        Claim(paths).take()
    assert first.holds


@pytest.mark.parametrize("up", [True, False])
def test_a_mesh_of_somebody_else_is_refused(paths, up):
    """A mesh without a demo's mark that is up, or remembers anything, is no demo's; no mark is made."""
    paths.make()
    lock = MeshLock(paths)
    if up:
        lock.take()
    else:
        paths.registry.touch()
    with pytest.raises(Conflict, match="the mesh stage is no demo's"):
        Claim(paths).take()
    lock.release()
    assert not paths.demo.exists()


def test_a_purge_ends_a_claim(paths):
    """Who had a mesh that was purged does not hold it any more: another demo may have it meanwhile."""
    first = Claim(paths)
    first.take()
    paths.purge()
    second = Claim(paths)
    assert second.take() is False
    assert second.holds
    assert not first.holds


def test_forgetting_leaves_the_claim(paths):
    """What a state directory holds is forgotten, files and folders; the demo's claim stays."""
    claim = Claim(paths)
    claim.take()
    paths.registry.touch()
    (paths.files / "key").touch()
    paths.forget()
    assert list(paths.state.iterdir()) == [paths.demo]
    assert claim.holds
