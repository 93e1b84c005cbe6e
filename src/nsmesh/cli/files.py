"""Files of manifests, read with clear errors and within limits."""

from __future__ import annotations

from pathlib import Path

from nsmesh.core.errors import Invalid, NotFound, Unauthorized

LIMIT = 4 << 20
"""Bytes; a larger file is refused before it is read."""
SUFFIXES = (".yaml", ".yml", ".json")


def expand(path: str) -> list[tuple[str, str]]:
    """Return (text, name) of a file, or of the manifests of a directory, sorted by name.

    Raises NotFound, Unauthorized or Invalid, each naming the file.
    """
    place = Path(path)
    if not place.exists():
        raise NotFound(f"there is no file {path}", remedy="check the path given with -f")
    if place.is_dir():
        files = sorted(item for item in place.iterdir() if item.suffix in SUFFIXES and item.is_file())
        if not files:
            raise NotFound(f"the directory {path} has no {', '.join(SUFFIXES)} file")
        return [_read(item) for item in files]
    return [_read(place)]


def _read(place: Path) -> tuple[str, str]:
    try:
        size = place.stat().st_size
        if size > LIMIT:
            raise Invalid(
                f"{place} has {size} bytes; more than {LIMIT} are not read",
                remedy="split it into smaller files",
            )
        return place.read_text(encoding="utf-8"), str(place)
    except UnicodeDecodeError as error:
        raise Invalid(f"{place} is not UTF-8 text (byte {error.start})", remedy="save it as UTF-8") from error
    except PermissionError as error:
        raise Unauthorized(f"{place} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise Invalid(f"{place} cannot be read: {error.strerror}") from error
