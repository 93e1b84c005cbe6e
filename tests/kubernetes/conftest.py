"""One real API server for the whole session, shared by all workers; one namespace for each test.

``pytest tests/kubernetes`` builds its programs first, unless that was done (minutes, once on a machine).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes_lab import API_PROGRAMS, LAB, SCRIPTS, ApiServer

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what needs the programs last, and take the time they take out of a test's own."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        limit = item.get_closest_marker("timeout")
        seconds = limit.args[0] if limit and limit.args else 60
        item.add_marker(pytest.mark.timeout(seconds, func_only=True), append=False)
    items.sort(key=lambda item: HERE in item.path.parents)


def _missing() -> str:
    if lost := [name for name in ("openssl", "curl", "python3") if shutil.which(name) is None]:
        return f"no {', '.join(lost)} here"
    if shutil.which("go") is None and not all((LAB / "bin" / name).exists() for name in API_PROGRAMS):
        return "no Go here: etcd and kube-apiserver cannot be built"
    return ""


def _script(name: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [SCRIPTS / name, *arguments],
        env={**os.environ, "NSMESH_LAB": str(LAB), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    absent = ("dial tcp", "requires go >=", "toolchain not available", "no such host")
    if done.returncode and name == "build.sh" and any(word in done.stderr for word in absent):
        pytest.skip(f"the Go modules of Kubernetes cannot be had here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, f"{name}: {done.stderr}"
    return done.stdout.strip()


@contextmanager
def _locked(name: str) -> Iterator[Path]:
    """Hold the lock of a server's name; gives the file that counts its users."""
    LAB.mkdir(parents=True, exist_ok=True)
    with (LAB / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield LAB / f".{name}.users"


def _count(users: Path, step: int) -> int:
    count = (int(users.read_text()) if users.exists() else 0) + step
    if count:
        users.write_text(str(count))
    else:
        users.unlink(missing_ok=True)
    return count


@pytest.fixture(scope="session")
def api_server(request: pytest.FixtureRequest) -> Iterator[ApiServer]:
    """Give the session's API server; the first worker starts it, the last one stops it."""
    if why := _missing():
        pytest.skip(why)
    if shutil.which("go") is not None:
        _script("build.sh", "api")
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    name = f"test-{run[:12]}"
    with _locked(name) as users:
        if _count(users, 1) == 1:
            try:
                _script("api-up.sh", NSMESH_API=name)
            except BaseException:
                _count(users, -1)
                raise
    try:
        yield ApiServer(LAB / name)
    finally:
        with _locked(name) as users:
            last = _count(users, -1) == 0
            if last:
                _script("api-down.sh", NSMESH_API=name)
        if last:
            (LAB / f".{name}.lock").unlink(missing_ok=True)


@contextmanager
def _own(*arguments: str) -> Iterator[ApiServer]:
    if why := _missing():
        pytest.skip(why)
    if shutil.which("go") is not None:
        _script("build.sh", "api")
    name = f"own-{uuid.uuid4().hex[:8]}"
    _script("api-up.sh", NSMESH_API=name, NSMESH_API_ARGS=" ".join(arguments))
    try:
        yield ApiServer(LAB / name)
    finally:
        _script("api-down.sh", NSMESH_API=name)


@pytest.fixture
def own_api_server() -> Iterator[ApiServer]:
    """Give an API server of the test's own, to be stopped, restarted and compacted."""
    with _own() as server:
        yield server


@pytest.fixture(scope="module")
def forgetful_api_server() -> Iterator[ApiServer]:
    """Give an API server that knows no more of the past than etcd does: it keeps no history of its own."""
    with _own("--watch-cache=false") as server:
        yield server


@pytest.fixture(scope="session")
def webhook_server() -> Iterator[ApiServer]:
    """Give a worker's own API server: webhooks and policies there are about the objects of all its tests."""
    with _own() as server:
        yield server


@pytest.fixture
def api_namespace(api_server: ApiServer) -> Iterator[str]:
    """Make a namespace for one test; nothing of it is left to the next."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    api_server.kubectl("create", "namespace", name)
    yield name
    api_server.kubectl("delete", "namespace", name, "--wait=false")
