"""A user who is not root is told so at once, whatever the command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mesh_lab import MARK, Done

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Give a Python that everybody may run, with what it needs; skip where there is none."""
    program = shutil.which("python3", path="/usr/bin:/bin")
    if program is None:
        pytest.skip("there is no Python that everybody may run")
    source = f"import sys; sys.path[:0] = {sys.path!r}; from nsmesh.cli.main import main; main(sys.argv[1:])"
    argv = [sys.executable if os.access(sys.executable, os.X_OK) else program, "-c"]
    if run_as_nobody([*argv, f"import sys; sys.path[:0] = {sys.path!r}; import nsmesh, click"]).returncode:
        pytest.skip("the package is in a folder that only root may read")
    return [*argv, source]


def run_as_nobody(argv):
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    return subprocess.run(
        [*drop, *argv],
        capture_output=True, text=True, check=False, timeout=30, cwd="/", env={MARK: os.environ[MARK]},
    )  # fmt: skip


def as_nobody(python, *arguments):
    done = run_as_nobody([*python, *arguments])
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("words", [["up"], ["up", "--foreground"], ["up", "--separate"], ["down"], ["demo"]])
def test_what_makes_things_needs_root(python, words):
    """One sentence with the remedy, exit code 1."""
    as_nobody(python, *words).fails("needs root", "-> run it with sudo")


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["get", "services"],
        ["logs"],
        ["connect", "kernel://x", "--netns", "y"],
        ["disconnect", "x-0"],
    ],
)
def test_a_mesh_of_root_is_not_for_others(python, mesh, words):
    """A living mesh says whose it is; no socket, log or list of it can be read."""
    mesh.root.chmod(0o755)
    as_nobody(python, *mesh.options, *words).fails(f"the mesh in {mesh.run} is not yours", "sudo")
    assert Path(mesh.run).stat().st_mode & 0o077 == 0
    assert Path(mesh.state).stat().st_mode & 0o077 == 0


def test_what_needs_no_root(python):
    """Help, version, and the doctor, who says what is missing."""
    as_nobody(python, "version").ok()
    as_nobody(python, "doctor").fails(code=1)
    assert "rights" in as_nobody(python, "doctor").out
