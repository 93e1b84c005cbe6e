"""Where a mesh keeps its things on this host: one run directory, one state directory, one name prefix."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.errors import Invalid, Unauthorized, Unavailable

RUN_ROOT = Path("/run/nsmesh")
STATE_ROOT = Path("/var/lib/nsmesh")
DEFAULT_MESH = "default"
_LONGEST_SOCKET = 40
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
    def fork_server(self) -> Path:
        """Socket at which the fork server of a killed daemon is asked for the next one."""
        return self.run / "fork-server.sock"

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
        """Socket of any other role or endpoint; long names are cut and told apart by a digest."""
        if len(role) > _LONGEST_SOCKET:
            digest = hashlib.sha256(role.encode()).hexdigest()[:10]
            role = f"{role[: _LONGEST_SOCKET - 11]}+{digest}"
        return self.run / "sock" / f"{role}.sock"

    def switch(self, node: str = "") -> Path:
        """Folder of the Open vSwitch of a node; short, since there are sockets in it."""
        return self.run / (f"ovs-{node[:8]}" if node else "ovs")

    @property
    def lock(self) -> Path:
        """Held by the living daemon; see :mod:`nsmesh.standalone.lock`."""
        return self.run / "lock"

    @property
    def state_lock(self) -> Path:
        """Held by the living daemon too: two meshes must not share a state directory."""
        return self.state / "lock"

    @property
    def demo(self) -> Path:
        """Held by the living demonstration, and a mark of its mesh afterwards."""
        return self.state / "demo"

    @property
    def children(self) -> Path:
        """Which processes and namespaces this mesh made; read by ``nsm down`` after a crash."""
        return self.run / "children.json"

    @property
    def journals(self) -> Path:
        """Folder of the journals, one for each process that has agreed something."""
        return self.run / "journals"

    def journal(self, name: str) -> Path:
        """Journal of a process of the mesh."""
        return self.journals / f"{name}.db"

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
    def listening(self) -> Path:
        """Where this host listens for others, if it does."""
        return self.state / "listening.json"

    @property
    def membership(self) -> Path:
        """Which mesh this host joined, if it did, and its identity there."""
        return self.state / "membership.json"

    @property
    def forwarders(self) -> Path:
        """What the forwarders of this host were to be like when the mesh came up last."""
        return self.state / "forwarders.json"

    @property
    def connects(self) -> Path:
        """What was connected by hand."""
        return self.state / "connects.json"

    @property
    def files(self) -> Path:
        """Working directory of endpoints and workloads: relative names in their options mean files here."""
        return self.state / "files"

    @property
    def forwarder_name(self) -> str:
        """Name of the forwarder in paths and in the registry."""
        return f"forwarder-{self.mesh}"

    @property
    def manager_name(self) -> str:
        """Name of the manager in paths."""
        return f"nsmgr-{self.mesh}"

    def owner_of(self, forwarder: str) -> str:
        """Owner of a forwarder's wires, for the datapath."""
        return f"forwarder:{forwarder}"

    @property
    def link_owner(self) -> str:
        """Owner of the links, for the datapath."""
        return f"link:{self.mesh}"

    def netns(self, name: str) -> str:
        """Name, under ``/run/netns``, of the namespace that belongs to a workload or endpoint."""
        return f"{self.mesh}.{name}"

    def make(self) -> None:
        """Create the folders, private to their owner. Raises Unauthorized or Unavailable."""
        for folder in (self.run, self.run / "sock", self.journals, self.logs, self.state, self.files):
            _make_folder(folder)
        if len(str(self.socket("x" * _LONGEST_SOCKET))) > 107:  # sun_path, less its final zero
            raise Invalid(
                f"the run directory {self.run} is too long for unix sockets",
                remedy="choose a shorter one with --run-dir",
            )

    def clear(self) -> None:
        """Remove the run directory; the state directory stays."""
        shutil.rmtree(self.run, ignore_errors=True)
        if self.run.parent == RUN_ROOT:
            with contextlib.suppress(OSError):  # other meshes are in it
                RUN_ROOT.rmdir()

    def forget(self) -> None:
        """Empty the state directory, but for the locks that somebody may hold."""
        for item in self.state.iterdir():
            if item.is_dir():
                shutil.rmtree(item, ignore_errors=True)
            elif item not in {self.demo, self.state_lock}:
                item.unlink(missing_ok=True)

    def purge(self) -> None:
        """Remove the state directory."""
        shutil.rmtree(self.state, ignore_errors=True)
        if self.state.parent == STATE_ROOT:
            with contextlib.suppress(OSError):  # other meshes are in it
                STATE_ROOT.rmdir()


def _make_folder(folder: Path) -> None:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except FileNotFoundError:
            continue  # the last other mesh went down just now, and took the common parent with it
        except PermissionError:
            raise Unauthorized(f"{folder} cannot be made", remedy="run as root (sudo nsm ...)") from None
        except OSError as error:
            raise Unavailable(
                f"{folder} cannot be made: {error.strerror}",
                remedy="choose another place with --run-dir or --state-dir",
            ) from error
        else:
            return
