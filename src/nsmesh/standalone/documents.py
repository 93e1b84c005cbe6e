"""What was applied, kept on disk: a mesh that is started again comes back as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import structlog

from nsmesh.core.errors import Unavailable
from nsmesh.model.manifest import Endpoint, Link, LivenessCheck, ManifestErrors, Workload, dump, load

log = structlog.get_logger()

Local = Workload | Endpoint | Link
"""What is kept here; network services are the registry's."""

D = TypeVar("D", Workload, Endpoint, Link)


class Documents:
    """Workloads, endpoints and links by kind and name, written through to one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[tuple[str, str], Local] = {}
        self._load()

    def liveness(self, workload: str) -> LivenessCheck | None:
        """Return how the wires of a workload are looked at; None where no document says so."""
        found = self.known.get(("workload", workload))
        return found.liveness if isinstance(found, Workload) else None

    def _load(self) -> None:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return
        try:
            items = json.loads(text)
            for item in items:
                for document in load(json.dumps(item), str(self._path)):
                    if isinstance(document, Local):
                        self.known[key(document)] = document
        except (ValueError, ManifestErrors) as error:
            aside = self._path.with_suffix(".damaged")
            self._path.replace(aside)
            log.error("applied documents cannot be read; set aside", file=str(aside), error=str(error))  # noqa: TRY400 - a traceback would say nothing more
            self.known.clear()

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        try:
            with new.open("w") as file:
                json.dump([dump(document) for document in self.known.values()], file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise Unavailable(
                f"{self._path} cannot be written: {error.strerror}", remedy="make room, then apply again"
            ) from error

    def put(self, documents: Iterable[Local]) -> None:
        """Keep documents; raises Unavailable (and keeps the old state) when that cannot be written."""
        before = dict(self.known)
        self.known.update({key(document): document for document in documents})
        self._save_or(before)

    def drop(self, *keys: tuple[str, str]) -> None:
        """Forget documents, by kind and name; raises Unavailable (and keeps them) likewise."""
        before = dict(self.known)
        for item in keys:
            self.known.pop(item, None)
        if self.known != before:
            self._save_or(before)

    def _save_or(self, before: dict[tuple[str, str], Local]) -> None:
        try:
            self._save()
        except Unavailable:
            self.known = before
            raise

    def of(self, kind: type[D]) -> Iterator[D]:
        """Yield the documents of one kind, in the order in which they came."""
        return (document for document in list(self.known.values()) if isinstance(document, kind))


def key(document: Local) -> tuple[str, str]:
    """Return kind and name."""
    return type(document).__name__.lower(), document.name
