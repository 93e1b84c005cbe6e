"""Whose mesh a demonstration may take: its own, what a dead one left, and never anybody else's."""

from __future__ import annotations

from nsmesh.core.errors import Conflict
from nsmesh.standalone.lock import Holder, Lock, daemon_pid
from nsmesh.standalone.paths import MeshPaths


class Claim:
    """A demonstration's claim to a mesh, held while its process lives; then a mark of whose the mesh was.

    The claim is a lock file in the mesh's state directory: a mesh that has something and no such file was
    made by somebody else.
    """

    def __init__(self, paths: MeshPaths) -> None:
        self._paths = paths
        self._lock = Lock(paths.demo, paths.mesh)

    def take(self) -> bool:
        """Take the mesh; say whether an earlier demonstration left something in it.

        Raises Conflict, before anything is changed, where a demonstration runs in it or it is no
        demonstration's.
        """
        paths = self._paths
        again = paths.demo.exists()
        if not again and (daemon_pid(paths) is not None or paths.registry.exists()):
            raise Conflict(
                f"the mesh {paths.mesh} is no demo's, and a demo ends with removing all of its mesh",
                remedy=f"let the demo have another one: nsm --mesh NAME demo; "
                f"or remove this one: nsm --mesh {paths.mesh} down --purge",
            )
        found = self._locked()
        if found is not None:
            raise Conflict(
                f"a demo runs in the mesh {paths.mesh} already (pid {found.pid})",
                remedy="wait for its end, or let this one have another mesh: nsm --mesh NAME demo",
            )
        return again

    def _locked(self) -> Holder | None:
        while True:
            self._paths.make()
            try:
                return self._lock.take()
            except FileNotFoundError:
                continue  # another demo has just removed the last of its mesh

    @property
    def holds(self) -> bool:
        """Whether the mesh is ours still: ``nsm down --purge`` ends a claim, and another demo may come."""
        return self._lock.holds

    def release(self) -> None:
        """Let go; the mark stays as long as the state directory does."""
        self._lock.release()
