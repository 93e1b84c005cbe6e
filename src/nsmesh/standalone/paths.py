"""Where a mesh keeps its things on this host: one run directory, one state directory, one name prefix."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.errors import Conflict, Invalid, Unauthorized, Unavailable

RUN_ROOT = Path("/run/nsmesh")
STATE_ROOT = Path("/var/lib/nsmesh")
DEFAULT_MESH = "default"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class MeshPaths:
    """All paths of one mesh. ``run`` is emptied by ``nsm down``; ``state`` holds registry and documents."""

    mesh: str
    run: Path
    state: Path

    @classmethod
    def of(cls, mesh: str = "", run_dir: str = "", state_dir: str = "") -> MeshPaths:
        """Return the paths of a mesh.

        Empty arguments mean ``NSM_MESH``, ``NSM_RUN_DIR``, ``NSM_STATE_DIR`` and then the defaults
        ``default``, ``/run/nsmesh/MESH`` and ``/var/lib/nsmesh/MESH``.

        Raises Invalid for a name that is no DNS label of 32 characters at the most.
        """
        mesh = mesh or os.environ.get("NSM_MESH", "") or DEFAULT_MESH
        if not _NAME.fullmatch(mesh):
            raise Invalid(
                f"the mesh name {mesh!r} cannot be used",
                remedy="use lower-case letters, digits and '-', 32 characters at the most",
            )
        run = Path(run_dir or os.environ.get("NSM_RUN_DIR", "") or RUN_ROOT / mesh)
        state = Path(state_dir or os.environ.get("NSM_STATE_DIR", "") or STATE_ROOT / mesh)
        return cls(mesh, run.absolute(), state.absolute())

    @property
    def control(self) -> Path:
        """Socket of the control interface."""
        return self.run / "control.sock"

    @property
    def manager(self) -> Path:
        """Socket of the manager: NSM's own name for it."""
        return self.run / "nsm.io.sock"

    @property
    def workload_api(self) -> str:
        """URL of the SPIFFE Workload API, for SPIFFE_ENDPOINT_SOCKET."""
        return f"unix://{self.run / 'workload.sock'}"

    @property
    def trust_domain(self) -> str:
        """Trust domain of the mesh's own CA."""
        return f"{self.mesh}.nsmesh"

    def socket(self, role: str) -> Path:
        """Socket of any other role or endpoint."""
        return self.run / "sock" / f"{role}.sock"

    @property
    def lock(self) -> Path:
        """Held by the living daemon; its content is the daemon's pid."""
        return self.run / "lock"

    @property
    def children(self) -> Path:
        """Which processes and namespaces this mesh made; read by ``nsm down`` after a crash."""
        return self.run / "children.json"

    @property
    def logs(self) -> Path:
        """Folder of the log files, one for each role, endpoint and workload."""
        return self.run / "logs"

    @property
    def registry(self) -> Path:
        """SQLite file of the registry."""
        return self.state / "registry.db"

    @property
    def documents(self) -> Path:
        """What was applied: workloads, endpoints, links."""
        return self.state / "documents.json"

    @property
    def files(self) -> Path:
        """Working directory of endpoints and workloads: relative names in their options mean files here."""
        return self.state / "files"

    def netns(self, name: str) -> str:
        """Name, under ``/run/netns``, of the namespace that belongs to a workload or endpoint."""
        return f"{self.mesh}.{name}"

    def make(self) -> None:
        """Create the folders, private to their owner. Raises Unauthorized or Unavailable."""
        for folder in (self.run, self.run / "sock", self.logs, self.state, self.files):
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            except PermissionError:
                raise Unauthorized(f"{folder} cannot be made", remedy="run as root (sudo nsm ...)") from None
            except OSError as error:
                raise Unavailable(
                    f"{folder} cannot be made: {error.strerror}",
                    remedy="choose another place with --run-dir or --state-dir",
                ) from error
        if len(str(self.socket("x" * 40))) > 107:  # sun_path, less its final zero
            raise Invalid(
                f"the run directory {self.run} is too long for unix sockets",
                remedy="choose a shorter one with --run-dir",
            )

    def clear(self) -> None:
        """Remove the run directory; the state directory stays."""
        shutil.rmtree(self.run, ignore_errors=True)


class Lock:
    """Says that a daemon lives: an flock on ``paths.lock``, gone with its process whatever kills it."""

    def __init__(self, paths: MeshPaths) -> None:
        self.paths = paths
        self._fd = -1

    def take(self) -> None:
        """Take the lock or raise Conflict with the pid of the living daemon."""
        fd = os.open(self.paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 32).decode().strip()
            os.close(fd)
            raise Conflict(
                f"the mesh {self.paths.mesh} is up already (pid {pid})",
                remedy=f"use it, or stop it with: nsm down --mesh {self.paths.mesh}",
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Let go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def daemon_pid(paths: MeshPaths) -> int | None:
    """Return the pid of the living daemon of this mesh, or None."""
    try:
        fd = os.open(paths.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(fd, 32).decode().strip() or 0)
    else:
        return None
    finally:
        os.close(fd)
