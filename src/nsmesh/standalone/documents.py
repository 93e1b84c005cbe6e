"""What was applied, kept on disk: a mesh that is started again comes back as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import structlog

from nsmesh.core.errors import Unavailable
from nsmesh.model.manifest import Endpoint, Link, ManifestErrors, Workload, dump, load

log = structlog.get_logger()

Local = Workload | Endpoint | Link
"""What is kept here; network services are the registry's."""


class Documents:
    """Workloads, endpoints and links by kind and name, written through to one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[tuple[str, str], Local] = {}
        self._load()

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
            log.error("applied documents cannot be read; set aside", file=str(aside), error=str(error))  # noqa: TRY400
            self.known.clear()

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        try:
            new.write_text(json.dumps([dump(document) for document in self.known.values()], indent=1))
            new.replace(self._path)
        except OSError as error:
            raise Unavailable(
                f"{self._path} cannot be written: {error.strerror}", remedy="make room, then apply again"
            ) from error

    def put(self, document: Local) -> None:
        """Keep a document; raises Unavailable (and keeps the old state) when the disk is full."""
        old = self.known.get(key(document))
        self.known[key(document)] = document
        try:
            self._save()
        except Unavailable:
            if old is None:
                del self.known[key(document)]
            else:
                self.known[key(document)] = old
            raise

    def drop(self, kind: str, name: str) -> None:
        """Forget a document."""
        if self.known.pop((kind, name), None) is not None:
            self._save()

    def of(self, kind: type) -> Iterator[Local]:
        """Yield the documents of one kind, in the order in which they came."""
        return (document for document in list(self.known.values()) if isinstance(document, kind))


def key(document: Local) -> tuple[str, str]:
    """Return kind and name."""
    return type(document).__name__.lower(), document.name
