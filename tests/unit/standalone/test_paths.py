"""Where a mesh keeps its things."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.standalone.paths import MeshPaths

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True)


@given(NAMES)
def test_a_name_decides_all(name):
    """Two meshes of different names share no path by default."""
    paths = MeshPaths.of(name)
    assert paths.run == Path("/run/nsmesh", name)
    assert paths.state == Path("/var/lib/nsmesh", name)
    assert paths.netns("a") == f"{name}.a"


@pytest.mark.parametrize("name", ["-a", "a-", "A", "a.b", "a/b", "../a", "a" * 33, "a b"])
def test_what_is_no_label_is_refused(name):
    """A name becomes a part of paths, namespaces and identities: only DNS labels will do."""
    with pytest.raises(Invalid, match="cannot be used"):
        MeshPaths.of(name)


def test_arguments_come_before_variables_and_those_before_defaults(monkeypatch):
    """Each of the three is looked up for itself."""
    monkeypatch.setenv("NSM_MESH", "env")
    monkeypatch.setenv("NSM_RUN_DIR", "/tmp/env-run")
    monkeypatch.delenv("NSM_STATE_DIR", raising=False)
    paths = MeshPaths.of(run_dir="/tmp/given")
    assert (paths.mesh, paths.run) == ("env", Path("/tmp/given"))
    assert paths.state == Path("/var/lib/nsmesh/env")
    assert MeshPaths.of("m").run == Path("/tmp/env-run")


@given(st.lists(st.text("abc-.", min_size=1, max_size=80), min_size=2, max_size=2, unique=True))
def test_sockets_are_short_and_do_not_meet(roles):
    """Whatever a role's name is, its socket's is short, and no other role has the same."""
    sockets = [MeshPaths.of("m").socket(role) for role in roles]
    assert len(set(sockets)) == 2
    assert all(len(socket.stem) <= 40 for socket in sockets)


def test_folders_are_private_and_go_again():
    """Nobody else may look into them; both directories go, each by its own call."""
    with tempfile.TemporaryDirectory(prefix="nsm-", dir="/tmp") as short:
        paths = MeshPaths.of("m", f"{short}/run", f"{short}/state")
        paths.make()
        paths.make()
        assert {folder.stat().st_mode & 0o777 for folder in (paths.run, paths.logs, paths.state)} == {0o700}
        paths.clear()
        assert not paths.run.exists()
        assert paths.files.exists()
        paths.purge()
        assert not paths.state.exists()


def test_a_run_directory_must_leave_room_for_sockets(tmp_path):
    """The kernel takes 107 bytes: a longer run directory is refused before anything listens in it."""
    with pytest.raises(Invalid, match="too long for unix sockets"):
        MeshPaths.of("m", str(tmp_path / ("x" * 80)), str(tmp_path / "state")).make()


def test_a_file_in_the_way_is_told(tmp_path):
    """What cannot be made is named, with what to do."""
    (tmp_path / "run").touch()
    with pytest.raises(Unavailable, match=r"run.* cannot be made") as caught:
        MeshPaths.of("m", str(tmp_path / "run"), str(tmp_path / "state")).make()
    assert "--run-dir" in caught.value.remedy
