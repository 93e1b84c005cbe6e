"""Files of manifests, read with clear errors and within limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.errors import Invalid, NotFound, Unauthorized
from nsmesh.model.manifest_text import LARGEST

LIMIT = LARGEST
"""Bytes; more are not read."""
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Source:
    """A text, what it is called in errors, and the directory that ``./file.py`` in it is relative to."""

    text: str
    name: str
    directory: str


def sources(paths: Iterable[str]) -> list[Source]:
    """Return the texts of files, of the manifests in directories (sorted by name), and of stdin (``-``).

    Raises NotFound, Unauthorized or Invalid, each naming the file.
    """
    return [source for path in paths for source in _expand(path)]


def _here() -> str:
    """Return the working directory; nothing where it is gone, or out of our root."""
    try:
        return os.getcwd()  # noqa: PTH109 - the text is what is wanted
    except FileNotFoundError:
        return ""


def _expand(path: str) -> list[Source]:
    if path == "-":
        return [Source(_decode(sys.stdin.buffer.read(LIMIT + 1), "standard input"), "stdin", _here())]
    place = Path(path)
    if not place.exists():
        raise NotFound(f"there is no file {path}", remedy="check the path given with -f")
    if not place.is_dir():
        return [_read(place)]
    files = sorted(item for item in place.iterdir() if item.suffix in SUFFIXES and item.is_file())
    if not files:
        raise NotFound(f"the directory {path} has no {', '.join(SUFFIXES)} file")
    return [_read(item) for item in files]


def _read(place: Path) -> Source:
    try:
        with place.open("rb") as stream:
            raw = stream.read(LIMIT + 1)
    except PermissionError as error:
        raise Unauthorized(f"{place} cannot be read: {error.strerror}", remedy=f"ls -l {place}") from error
    except OSError as error:
        raise Invalid(f"{place} cannot be read: {error.strerror}") from error
    return Source(_decode(raw, str(place)), str(place), str(place.absolute().parent))


def _decode(raw: bytes, name: str) -> str:
    if len(raw) > LIMIT:
        raise Invalid(f"{name} has more than {LIMIT} bytes", remedy="split it into smaller files")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{name} is not UTF-8 text (byte {error.start})", remedy="save it as UTF-8") from error
