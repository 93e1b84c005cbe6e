"""The lock of a living daemon."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from nsmesh.core.errors import Conflict
from nsmesh.standalone.lock import Holder, Lock, MeshLock, daemon_pid, holder
from nsmesh.standalone.paths import MeshPaths


def mesh(name, run, state):
    for folder in (run, state):
        folder.mkdir(exist_ok=True)
    return MeshPaths(name, run, state)


def test_a_lock_names_its_holder(tmp_path):
    """Nobody, then pid and mesh of who has it, then nobody again; letting go twice is no harm."""
    path = tmp_path / "lock"
    assert holder(path) is None
    lock = Lock(path, "m")
    assert lock.take() is None
    assert holder(path) == Holder(os.getpid(), "m")
    assert Lock(path, "n").take() == Holder(os.getpid(), "m")
    lock.release()
    lock.release()
    assert holder(path) is None


def test_it_is_gone_with_its_process(tmp_path):
    """However a process ends: after a SIGKILL the lock is free, though its file names the dead."""
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def hold():
        Lock(path, "m").take()
        there.send(None)
        signal.pause()

    process = context.Process(target=hold)
    process.start()
    here.recv()
    assert holder(path) == Holder(process.pid, "m")
    process.kill()
    process.join()
    assert str(process.pid) in path.read_text()
    assert Lock(path, "m").take() is None


def test_what_a_killed_process_still_has_is_waited_for(tmp_path):
    """A dead holder's lock is nobody's, though something of it has its files open for a moment."""
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def hold():
        Lock(path, "m").take()
        if os.fork() == 0:
            here.close()
            there.send(os.getpid())
            there.recv()
            os._exit(0)
        signal.pause()

    process = context.Process(target=hold)
    process.start()
    here.recv()
    process.kill()
    process.join()
    end = threading.Timer(0.1, here.send, [None])
    end.start()
    assert holder(path) is None
    end.join()
    assert Lock(path, "m").take() is None


def test_a_removed_file_is_not_held(tmp_path):
    """Who holds a file that was removed does not hold the lock: the next one has a new file."""
    path = tmp_path / "lock"
    first, second = Lock(path, "m"), Lock(path, "m")
    first.take()
    path.unlink()
    assert second.take() is None
    assert second.holds
    assert not first.holds


def test_looking_leaves_no_trace(tmp_path):
    """Asking who holds a lock makes no file, also where the folder is not there."""
    assert holder(tmp_path / "none" / "lock") is None
    assert daemon_pid(MeshPaths("m", tmp_path, tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_mesh_that_is_up_refuses_a_second_daemon(tmp_path):
    """With the same name: it is up already; with another one: the run directory is somebody's."""
    paths = mesh("m", tmp_path / "run", tmp_path / "state")
    lock = MeshLock(paths)
    lock.take()
    assert daemon_pid(paths) == os.getpid()
    with pytest.raises(Conflict, match="the mesh m is up already"):
        MeshLock(paths).take()
    with pytest.raises(Conflict, match=r"run directory .* belongs to the mesh m") as caught:
        MeshLock(mesh("n", paths.run, tmp_path / "other")).take()
    assert "--run-dir" in caught.value.remedy
    lock.release()
    MeshLock(paths).take()


def test_two_meshes_do_not_share_a_state_directory(tmp_path):
    """The second one is refused, and has let go of its own run directory by then."""
    state: Path = tmp_path / "state"
    MeshLock(mesh("m", tmp_path / "run", state)).take()
    second = mesh("n", tmp_path / "run-n", state)
    with pytest.raises(Conflict, match=r"state directory .* belongs to the mesh m"):
        MeshLock(second).take()
    assert holder(second.lock) is None
