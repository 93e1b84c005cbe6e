"""The list of what a mesh made on this host, on disk: what ``nsm up`` and ``down`` need after a crash."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import structlog

from nsmesh.core.process import boot_id
from nsmesh.datapath import netns
from nsmesh.standalone.processes import Started, alive

log = structlog.get_logger()


class Children:
    """Processes by name, own namespaces by name, and the paths of others' namespaces that have wires of ours.

    Written through to ``children.json`` at each change. An entry is written *before* its namespace is made
    and right after its process is started, and removed after both are gone, so that a crash at any line
    leaves too many entries, never too few. What an earlier boot of this machine left is no concern of ours.

    Who comes after a killed one goes on with what it can prove to be the same: a process of that pid, start
    and command, a namespace of that identity. ``mode`` is how the mesh was brought up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: dict[str, Started] = {}
        self.namespaces: set[str] = set()
        self.places: set[str] = set()
        self.mode = ""
        self._commands: dict[str, str] = {}
        self._identities: dict[str, tuple[int, int]] = {}
        self._load()

    def _load(self) -> None:
        try:
            data = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return
        if not isinstance(data, dict) or data.get("boot") != boot_id():
            return
        self.processes = {name: Started(*item) for name, item in data.get("processes", {}).items()}
        self.namespaces = set(data.get("namespaces", []))
        self.places = set(data.get("places", []))
        self.mode = data.get("mode", "")
        self._commands = data.get("commands", {})
        self._identities = {name: tuple(pair) for name, pair in data.get("identities", {}).items()}

    def _save(self) -> None:
        data: dict[str, Any] = {
            "boot": boot_id(),
            "mode": self.mode,
            "processes": {name: [item.pid, item.ticks] for name, item in self.processes.items()},
            "namespaces": sorted(self.namespaces),
            "places": sorted(self.places),
            "commands": self._commands,
            "identities": self._identities,
        }
        new = self.path.with_suffix(".new")
        try:
            new.write_text(json.dumps(data, indent=1))
            new.replace(self.path)
        except OSError as error:
            # the mesh works on; only a crash before the next successful write would leave something behind
            log.warning("the list of children cannot be written", file=str(self.path), error=str(error))

    def set_mode(self, mode: str) -> None:
        """Remember how the mesh was brought up."""
        if mode != self.mode:
            self.mode = mode
            self._save()

    def add_process(self, name: str, process: Started, command: str = "") -> None:
        """Remember a process; ``command`` tells what it runs from anything else that it might."""
        if self.processes.get(name) == process and self._commands.get(name) == command:
            return
        self.processes[name] = process
        self._commands[name] = command
        self._save()

    def same_process(self, name: str, command: str) -> Started | None:
        """Return the process of that name that lives and runs ``command``, or None."""
        found = self.processes.get(name)
        if found is None or self._commands.get(name) != command or not alive(found):
            return None
        return found

    def drop_process(self, name: str) -> None:
        """Forget a process that is gone."""
        self._commands.pop(name, None)
        if self.processes.pop(name, None) is not None:
            self._save()

    def add_namespace(self, name: str) -> None:
        """Remember a namespace that is about to be made."""
        if name not in self.namespaces:
            self.namespaces.add(name)
            self._save()

    def prove_namespace(self, name: str) -> None:
        """Remember which namespace it is that was made under a name; one that is gone proves nothing."""
        with contextlib.suppress(OSError):
            self._identities[name] = netns.identity(f"{netns.RUN_NETNS}/{name}")
            self._save()

    def same_namespace(self, name: str) -> bool:
        """Say whether the namespace of that name is the one that was made."""
        known = self._identities.get(name)
        try:
            return known is not None and netns.identity(f"{netns.RUN_NETNS}/{name}") == known
        except OSError:
            return False

    def drop_namespace(self, name: str) -> None:
        """Forget a namespace that is gone."""
        self._identities.pop(name, None)
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
