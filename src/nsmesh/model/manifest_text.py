"""The text of a manifest before it is YAML: its size, its characters, its documents."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nsmesh.model.manifest_errors import ManifestError

LARGEST = 1 << 20
"""Bytes of one file."""
MOST_DOCUMENTS = 2000
"""Documents of one file."""

_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_START = re.compile(r"---(?:[ \t\r\n]|$)")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The text of one document of a stream; its first line is line ``first`` of the file."""

    text: str
    first: int


def check_size(size: int, source: str) -> None:
    """Raise :class:`ManifestError` for a file that is too large, with its size and the limit."""
    if size > LARGEST:
        raise ManifestError(
            source, 0, 0, f"the file has {size} bytes; {LARGEST} are the most", "split it into several files"
        )


def check_characters(text: str, source: str) -> None:
    """Refuse what is too large, and characters that YAML does not allow. Raises :class:`ManifestError`."""
    check_size(len(text), source)
    check_size(len(text.encode(errors="surrogatepass")), source)
    bad = _CONTROL.search(text, 1 if text.startswith("\ufeff") else 0)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        what = f"the character U+{ord(bad.group()):04X} is not allowed in YAML"
        raise ManifestError(
            source, line, column, what, "remove it, or write it as an escape in double quotes"
        )


def decode(raw: bytes, source: str) -> str:
    """Return the text of a file in UTF-8; raises :class:`ManifestError` at the first bad byte."""
    check_size(len(raw), source)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        what = f"the byte 0x{raw[error.start]:02x} is no UTF-8"
        raise ManifestError(source, line, column, what, "save the file in UTF-8") from None


def split(text: str, source: str) -> list[Chunk]:
    """Cut a stream at its ``---`` lines, so that a broken document does not hide the others.

    Raises :class:`ManifestError` when there are too many.
    """
    chunks: list[Chunk] = []
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    start = 0
    for number, line in enumerate(lines):
        # directives and comments in front of a document belong to it
        if _START.match(line) and any(item.strip() and item[0] not in "%#" for item in lines[start:number]):
            chunks.append(Chunk("".join(lines[start:number]), start + 1))
            start = number
    chunks.append(Chunk("".join(lines[start:]), start + 1))
    if len(chunks) > MOST_DOCUMENTS:
        what = f"the file has {len(chunks)} documents; {MOST_DOCUMENTS} are the most"
        raise ManifestError(source, chunks[MOST_DOCUMENTS].first, 1, what, "split it into several files")
    return chunks
