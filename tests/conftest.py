"""What tests of several folders share: programs in Go, built once."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nsmesh-tests"
"""Where built programs are kept, outside of the tree."""
LONGEST_BUILD = 175.0
"""Seconds that a build may take."""

# A shell starts what runs in its background with SIGINT ignored, and our children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Who is told to end cleans up first, as after Ctrl-C: meshes and namespaces of a test go with it.
signal.signal(signal.SIGTERM, signal.default_int_handler)


def build(folder: Path, package: str, name: str) -> Path:
    """Build ``package`` in the Go module at ``folder``, unless that was done before; return the program.

    Skips where Go is absent or too old, or its modules cannot be had.
    """
    go = shutil.which("go")
    if go is None:
        pytest.skip(f"no Go here: {name} cannot be built")
    sources = sorted(path for path in folder.rglob("*") if path.suffix in {".go", ".mod", ".sum"})
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    program = CACHE / f"{name}-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may want it at a time
        if not program.exists():
            _compile(go, folder, package, program)
    return program


def _compile(go: str, folder: Path, package: str, program: Path) -> None:
    environment = {
        **os.environ,
        "GOFLAGS": "-mod=mod -modcacherw -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    half = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [go, "build", "-o", half, package],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST_BUILD,
        check=False,
    )
    if done.returncode:
        text = done.stderr.strip()
        absent = ("dial tcp", "proxy", "requires go >=", "toolchain", "no such host", "i/o timeout")
        if any(word in text for word in absent):
            pytest.skip(f"the Go modules of {program.name} cannot be had here: {text.splitlines()[-1]}")
        pytest.fail(f"{program.name} does not build:\n{text}")
    half.replace(program)


@pytest.fixture(scope="session")
def go_build():
    """Give :func:`build`."""
    return build
