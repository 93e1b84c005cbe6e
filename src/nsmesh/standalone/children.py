"""The list of what a mesh made on this host, on disk: what ``nsm down`` needs after a crash."""

from __future__ import annotations

import json
from pathlib import Path

from nsmesh.standalone.processes import Started


class Children:
    """Processes by name and namespaces by name, written through to ``children.json`` at each change.

    An entry is written *before* its namespace is made and right after its process is started, and removed
    after both are gone, so that a crash at any line leaves too many entries, never too few.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: dict[str, Started] = {}
        self.namespaces: set[str] = set()
        self._load()

    def _load(self) -> None:
        try:
            data = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return
        self.processes = {name: Started(*item) for name, item in data.get("processes", {}).items()}
        self.namespaces = set(data.get("namespaces", []))

    def _save(self) -> None:
        data = {
            "processes": {name: [item.pid, item.ticks] for name, item in self.processes.items()},
            "namespaces": sorted(self.namespaces),
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(data, indent=1))
        new.replace(self.path)

    def add_process(self, name: str, process: Started) -> None:
        """Remember a process."""
        self.processes[name] = process
        self._save()

    def drop_process(self, name: str) -> None:
        """Forget a process that is gone."""
        if self.processes.pop(name, None) is not None:
            self._save()

    def add_namespace(self, name: str) -> None:
        """Remember a namespace that is about to be made."""
        if name not in self.namespaces:
            self.namespaces.add(name)
            self._save()

    def drop_namespace(self, name: str) -> None:
        """Forget a namespace that is gone."""
        if name in self.namespaces:
            self.namespaces.discard(name)
            self._save()
