"""The list of what a mesh made on this host, on disk: what ``nsm up`` and ``down`` need after a crash."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import structlog

from nsmesh.standalone.processes import Started

log = structlog.get_logger()

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Children:
    """Processes by name, own namespaces by name, and the paths of others' namespaces that have wires of ours.

    Written through to ``children.json`` at each change. An entry is written *before* its namespace is made
    and right after its process is started, and removed after both are gone, so that a crash at any line
    leaves too many entries, never too few. What an earlier boot of this machine left is no concern of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: dict[str, Started] = {}
        self.namespaces: set[str] = set()
        self.places: set[str] = set()
        self._load()

    def _load(self) -> None:
        try:
            data = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return
        if not isinstance(data, dict) or data.get("boot") != boot():
            return
        self.processes = {name: Started(*item) for name, item in data.get("processes", {}).items()}
        self.namespaces = set(data.get("namespaces", []))
        self.places = set(data.get("places", []))

    def _save(self) -> None:
        data: dict[str, Any] = {
            "boot": boot(),
            "processes": {name: [item.pid, item.ticks] for name, item in self.processes.items()},
            "namespaces": sorted(self.namespaces),
            "places": sorted(self.places),
        }
        new = self.path.with_suffix(".new")
        try:
            new.write_text(json.dumps(data, indent=1))
            new.replace(self.path)
        except OSError as error:
            # the mesh works on; only a crash before the next successful write would leave something behind
            log.warning("the list of children cannot be written", file=str(self.path), error=str(error))

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

    def add_place(self, path: str) -> None:
        """Remember a namespace of somebody else that is about to get a wire of ours."""
        if path not in self.places:
            self.places.add(path)
            self._save()

    def drop_place(self, path: str) -> None:
        """Forget a namespace of somebody else that has no wire of ours any more."""
        if path in self.places:
            self.places.discard(path)
            self._save()


def boot() -> str:
    """Return what tells this boot of the machine from others."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return os.uname().nodename
