"""Rules for names: DNS-1123 names of objects, interface names of the Linux kernel, the nearest known word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST_NAME = 63
LONGEST_INTERFACE = 15
"""IFNAMSIZ less the closing zero."""

_PLAIN_INTERFACE = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9_.-]{{0,{LONGEST_INTERFACE - 1}}}")
"""What nearly all names of interfaces are: asked for several times in the life of a connection."""

_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def name_problem(name: str) -> str:
    """Say why ``name`` is no DNS-1123 name of at most 63 characters; empty when it is one."""
    if not name:
        return "the name is empty"
    if len(name) > LONGEST_NAME:
        return f"the name has {len(name)} characters; {LONGEST_NAME} are the most"
    if _DNS_1123.fullmatch(name):
        return ""
    wrong = sorted(set(re.findall(r"[^-a-z0-9.]", name)))
    if wrong:
        listed = " ".join(repr(char) for char in wrong[:5])
        return f"the name {name!r} contains {listed}; lower case letters, digits, '-' and '.' are allowed"
    return f"the name {name!r} must begin and end with a letter or digit, and so must each part between dots"


def name_suggestion(name: str) -> str:
    """Return the nearest valid name, or empty when nothing of ``name`` can be kept."""
    kept = re.sub(r"[^-a-z0-9.]+", "-", name.lower())[:LONGEST_NAME]
    parts = (part.strip("-") for part in kept.split("."))
    return ".".join(part for part in parts if part)


def interface_problem(name: str) -> str:
    """Say why the Linux kernel would refuse ``name`` for an interface; empty when it takes it."""
    if _PLAIN_INTERFACE.fullmatch(name):
        return ""
    size = len(name.encode(errors="surrogateescape"))
    if not name:
        return "the interface name is empty"
    if size > LONGEST_INTERFACE:
        return (
            f"the interface name {name!r} has {size} characters; the kernel takes {LONGEST_INTERFACE} at most"
        )
    if name in {".", ".."}:
        return f"the kernel refuses the interface name {name!r}"
    for char in name:
        if char in "/:%" or char.isspace() or not char.isprintable():
            return f"the interface name {name!r} contains {char!r}, which is not allowed there"
    return ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that ``word`` was most likely meant to be, or empty."""
    options = sorted(known)
    folded = {_fold(option): option for option in options}
    same = folded.get(_fold(word))
    if same:
        return same
    close = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""


def _fold(word: str) -> str:
    return re.sub(r"[-_ ]", "", word).lower()
