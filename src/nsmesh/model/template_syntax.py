"""Syntax of Go text/template: from text to a tree of nodes.

All of the language that can serve a selector: text, comments, trim markers, pipelines, variables, if, with,
range, break, continue. ``define``, ``template`` and ``block`` are refused as if they did not parse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


class TemplateError(Exception):
    """The template does not parse, or cannot be executed."""


@dataclass(frozen=True, slots=True)
class Token:
    """One word of an action: ``kind`` is the name of the group in the lexer, ``text`` as written."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: text, number, truth value or nil (None)."""

    value: str | float | bool | None


@dataclass(frozen=True, slots=True)
class Function:
    """A function, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """``.a.b`` of the data, ``$x.a`` of a variable, ``(pipeline).a``; without fields the thing itself."""

    base: str | Pipeline
    fields: tuple[str, ...] = ()


Operand = Literal | Function | Chain


@dataclass(frozen=True, slots=True)
class Pipeline:
    """``$a, $b := command | command``; ``declares`` tells ``:=`` from ``=``."""

    commands: tuple[tuple[Operand, ...], ...]
    variables: tuple[str, ...] = ()
    declares: bool = True


@dataclass(frozen=True, slots=True)
class Text:
    """Text outside of actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A pipeline whose value is printed."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class Jump:
    """``break`` or ``continue``."""

    keyword: str


@dataclass(slots=True)
class Branch:
    """``if``, ``with`` or ``range``: the body, and what happens else."""

    keyword: str
    pipeline: Pipeline
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


Node = Text | Action | Jump | Branch

_TOKENS = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\.)+')
    |(?P<number>[-+]?(?:[0-9]|\.[0-9])(?:[-+](?<=[eEpP][-+])|[\w.])*)
    |(?P<field>\.\w+)
    |(?P<variable>\$\w*)
    |(?P<word>\w+)
    |(?P<mark>:=|[=|(),.])""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"if", "with", "range", "else", "end", "break", "continue"})
_REFUSED = frozenset({"define", "template", "block"})
_LEFT, _RIGHT = "{{", "}}"
_BLANK = " \t\r\n"


def tokens(text: str) -> list[Token]:
    """Cut the inside of an action into tokens, blanks included where they separate."""
    out: list[Token] = []
    at = 0
    while at < len(text):
        found = _TOKENS.match(text, at)
        if found is None or not found.lastgroup:
            raise TemplateError(f"unexpected {text[at]!r} in an action")
        kind = found.lastgroup
        if kind in {"field", "variable", "word", "number"} and not _ends_well(
            text[found.end() : found.end() + 1]
        ):
            raise TemplateError(f"unexpected {text[found.end()]!r} behind {found.group()!r}")
        out.append(Token(kind, found.group()))
        at = found.end()
    return out


def _ends_well(after: str) -> bool:
    return after in {"", " ", "\t", "\r", "\n", ".", ",", "|", ":", "=", ")", "("}


def pieces(text: str) -> list[str | list[Token]]:
    """Cut a template into texts and the tokens of its actions; comments are gone, trim markers are obeyed."""
    out: list[str | list[Token]] = []
    at = 0
    trim = False
    while True:
        start = text.find(_LEFT, at)
        plain = text[at:] if start < 0 else text[at:start]
        if trim:
            plain = plain.lstrip(_BLANK)
        trim = False
        if start < 0:
            out.append(plain)
            return out
        inside = start + 2
        if (
            text[inside : inside + 1] == "-"
            and text[inside + 1 : inside + 2] in _BLANK
            and inside + 1 < len(text)
        ):
            plain = plain.rstrip(_BLANK)
            inside += 2
        out.append(plain)
        if text.startswith("/*", inside):
            at, trim = _comment(text, inside)
            continue
        end = _action_end(text, inside)
        body = text[inside:end]
        trim = len(body) > 1 and body.endswith("-") and body[-2] in _BLANK
        out.append(tokens(body[:-2] if trim else body))
        at = end + 2


def _comment(text: str, at: int) -> tuple[int, bool]:
    close = text.find("*/", at)
    if close < 0:
        raise TemplateError("a comment is not closed")
    for mark, trims in ((_RIGHT, False), *((f"{blank}-{_RIGHT}", True) for blank in _BLANK)):
        if text.startswith(mark, close + 2):
            return close + 2 + len(mark), trims
    raise TemplateError("a comment must end its action")


def _action_end(text: str, at: int) -> int:
    while at < len(text):
        if text.startswith(_RIGHT, at):
            return at
        quoted = re.compile(r"""["'`]""").match(text, at)
        if quoted:
            token = _TOKENS.match(text, at)
            if token is None:
                raise TemplateError("a quoted text is not closed")
            at = token.end()
        else:
            at += 1
    raise TemplateError("an action is not closed")


def keyword(words: list[Token]) -> str:
    """Return the keyword that an action begins with, or empty; refuses what is not supported."""
    first = next((word for word in words if word.kind != "space"), None)
    if first is None or first.kind != "word":
        return ""
    if first.text in _REFUSED:
        raise TemplateError(f"{first.text!r} is not supported in a selector")
    return first.text if first.text in _KEYWORDS else ""
