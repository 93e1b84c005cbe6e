"""What can be told of a policy in Rego by its text alone: its rules, its calls, and the mistakes in it.

The engine behind :mod:`nsmesh.security.rego` lets some mistakes pass that would make a policy answer the
wrong question: a function that it does not have is silently undefined, and ``not`` of a name that means
nothing is true. Those are found here, with their lines, before anybody is asked anything.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

_QUIET = re.compile(r'"(?:\\.|[^"\\\n])*"|`[^`]*`|#[^\n]*')
_PACKAGE = re.compile(r"^package[ \t]+([A-Za-z_][\w.]*)[ \t]*$", re.MULTILINE)
_RULE = re.compile(r"^(?:default[ \t]+)?([A-Za-z_]\w*)", re.MULTILINE)
_IMPORT = re.compile(r"^import[ \t]+([\w.]+)(?:[ \t]+as[ \t]+(\w+))?", re.MULTILINE)
_CALL = re.compile(r"(?<![\w.])([A-Za-z_][\w.]*)\(")
_DENIED = re.compile(r"(?<![\w.])not\s+([A-Za-z_]\w*)(?![\w(])")
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")

_CLAUSES = ("as", "contains", "default", "else", "every", "if", "import", "in", "package", "some", "with")
_KEYWORDS = frozenset((*_CLAUSES, "not", "true", "false", "null"))


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a policy, and in which line (the first is 1)."""

    line: int
    what: str


def digest(text: str) -> str:
    """Return a fingerprint of a policy that its comments, indents and line ends do not change."""
    bare = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    return hashlib.sha256(" ".join(bare.split()).encode()).hexdigest()


def line_of(text: str, offset: int) -> int:
    """Return the number of the line in which the character at ``offset`` stands."""
    return text.count("\n", 0, offset) + 1


def package_of(text: str) -> str | None:
    """Return the package that a policy names, such as ``nsm``, or None."""
    found = _PACKAGE.search(_without_texts(text))
    return found[1] if found else None


def mistakes(text: str, known: Callable[[str], bool]) -> list[Mistake]:
    """Return what is wrong with a policy, in the order of its lines; ``known`` says which functions exist."""
    bare = _without_texts(text)
    if package_of(text) is None:
        return [Mistake(1, "it names no package")]
    rules = {name for name in _RULE.findall(bare) if name not in _KEYWORDS}
    found = [] if "valid" in rules else [Mistake(1, "it has no rule named valid")]
    found += _unknown_calls(bare, rules, known)
    found += _meaningless_denials(bare, rules)
    return sorted(found, key=lambda one: one.line)


def _without_texts(text: str) -> str:
    """Return the text with strings and comments blanked, each character and line still at its place."""
    return _QUIET.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _unknown_calls(bare: str, rules: set[str], known: Callable[[str], bool]) -> list[Mistake]:
    found = []
    for call in _CALL.finditer(bare):
        name = call[1]
        own = name in rules or (name.startswith("data.") and name.rpartition(".")[2] in rules)
        if not own and name not in _KEYWORDS and not known(name):
            found.append(Mistake(line_of(bare, call.start()), f"there is no function {name}"))
    return found


def _meaningless_denials(bare: str, rules: set[str]) -> list[Mistake]:
    words = Counter(_WORD.findall(bare))
    imported = {alias or path.rpartition(".")[2] for path, alias in _IMPORT.findall(bare)}
    said = rules | imported | _KEYWORDS | {"input", "data"}
    return [
        Mistake(line_of(bare, denied.start()), f"nothing says what {denied[1]} is, so its negation is true")
        for denied in _DENIED.finditer(bare)
        if denied[1] not in said and words[denied[1]] == 1
    ]
