"""Small JSON files of a mesh's state, private to root, replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.security.authority_files import write_private


def read(path: Path) -> dict[str, Any] | None:
    """Return what a file says, None where there is none; raises Invalid where it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Invalid(f"{path} cannot be read: {error}", remedy="restore it from a backup") from error
    if not isinstance(found, dict):
        raise Invalid(f"{path} is damaged", remedy="restore it from a backup")
    return found


def write(path: Path, content: dict[str, Any]) -> None:
    """Replace a file, mode 0600; raises Unavailable where that cannot be done."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}", remedy="make room for it") from error
