"""The ``path`` header of registry calls: an index, and the tokens of those that a call went through.

Text on the wire: ``{"Index":0,"PathSegments":[{"token":"..."}]}`` (contract 3.4). Keys are read in any case,
null is an empty list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

PATH_HEADER = "path"
MAX_INDEX = 2**32 - 1


@dataclass(slots=True)
class RegistryPath:
    """Tokens in the order of the call, and the index of whoever holds the path now. Shared and changed."""

    index: int = 0
    tokens: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the header's value."""
        segments = [{"token": token} for token in self.tokens] or None
        return json.dumps({"Index": self.index, "PathSegments": segments}, separators=(",", ":"))

    def enter(self, caller: str, own: str) -> int:
        """Put the caller's token at the index and our own behind it; return the caller's index.

        An empty path begins with the caller, whatever its index says. Raises ValueError when the index
        points behind the end.
        """
        if not self.tokens:
            self.index, self.tokens = 1, [caller, own]
            return 0
        came = self.index
        if came + 1 > len(self.tokens):
            raise ValueError(f"the index {came} points behind the last of {len(self.tokens)} segments")
        self.tokens[came] = caller
        self.tokens[came + 1 : came + 2] = [own]
        self.index = came + 1
        return came


def read_registry_path(text: str) -> RegistryPath:
    """Read a header's value; raises ValueError saying what is wrong with it."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("the path header is nested too deeply") from error
    if found is None:
        return RegistryPath()
    members = _members(found, "path header")
    index = members.get("index")
    if index is None:
        index = 0
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= MAX_INDEX:
        raise ValueError("the index of the path header is no uint32")
    segments = members.get("pathsegments")
    if segments is None:
        segments = []
    if not isinstance(segments, list):
        raise ValueError("the segments of the path header are no list")  # noqa: TRY004 - as documented
    return RegistryPath(index, [_token(segment) for segment in segments])


def _members(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a {what} is no JSON object")  # noqa: TRY004 - as documented
    return {key.lower(): member for key, member in value.items()}


def _token(segment: Any) -> str:
    token = None if segment is None else _members(segment, "segment of the path header").get("token")
    if token is None:
        return ""
    if not isinstance(token, str):
        raise ValueError("a token of the path header is no text")  # noqa: TRY004 - as documented
    return token


def set_path_id(path_ids: Any, position: int, spiffe_id: str) -> None:
    """Write one of an entry's ``path_ids``, a repeated string; what is missing before it becomes empty."""
    while len(path_ids) <= position:
        path_ids.append("")
    path_ids[position] = spiffe_id
