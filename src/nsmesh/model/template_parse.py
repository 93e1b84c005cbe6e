"""Parser of Go text/template: from the tokens of :mod:`template_syntax` to a tree."""

from __future__ import annotations

import ast
import re

from nsmesh.model.template_functions import FUNCTIONS
from nsmesh.model.template_syntax import (
    Action,
    Branch,
    Chain,
    Function,
    Jump,
    Literal,
    Node,
    Operand,
    Pipeline,
    TemplateError,
    Text,
    Token,
    keyword,
    pieces,
)

_DEEPEST = 60
_ESCAPES = r"[abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}"
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "nil": None}


def parse(text: str) -> list[Node]:
    """Return the tree of a template; raises :class:`TemplateError`."""
    return _Parser(text).template()


class _Parser:
    def __init__(self, text: str) -> None:
        self._pieces = pieces(text)
        self._at = 0
        self._words: list[Token] = []
        self._variables = ["$"]
        self._ranges = 0
        self._depth = 0

    def template(self) -> list[Node]:
        nodes, stop = self._nodes()
        if stop:
            raise TemplateError(f"unexpected {stop!r}")
        return nodes

    def _nodes(self) -> tuple[list[Node], str]:
        """Parse up to an ``else``, ``end`` or the end; the words behind ``else`` stay to be read."""
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                nodes.append(Text(piece))
                continue
            self._words = list(piece)
            word = keyword(piece)
            if word:
                self._skip()
                self._words.pop(0)
            if word in {"else", "end"}:
                return nodes, word
            nodes.append(self._action(word))
        return nodes, ""

    def _action(self, word: str) -> Node:
        if word in {"break", "continue"}:
            self._finish()
            if not self._ranges:
                raise TemplateError(f"{word!r} outside of range")
            return Jump(word)
        if word:
            return self._branch(word)
        pipeline = self._pipeline(ends={""})
        return Action(pipeline)

    def _branch(self, word: str) -> Branch:
        self._deeper()
        known = len(self._variables)
        branch = Branch(word, self._pipeline(ends={""}, in_range=word == "range"))
        self._ranges += word == "range"
        branch.body, stop = self._nodes()
        self._ranges -= word == "range"
        if stop == "else":
            following = keyword(self._words)
            if following and following == word != "range":
                self._skip()
                self._words.pop(0)
                branch.otherwise = [self._branch(word)]
                del self._variables[known:]
                self._depth -= 1
                return branch
            self._finish()
            branch.otherwise, stop = self._nodes()
        if stop != "end":
            raise TemplateError(f"{word!r} has no end")
        self._finish()
        del self._variables[known:]
        self._depth -= 1
        return branch

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise TemplateError(f"nested more than {_DEEPEST} levels deep")

    def _skip(self) -> bool:
        skipped = False
        while self._words and self._words[0].kind == "space":
            self._words.pop(0)
            skipped = True
        return skipped

    def _peek(self) -> str:
        return self._words[0].text if self._words else ""

    def _finish(self) -> None:
        self._skip()
        if self._words:
            raise TemplateError(f"unexpected {self._peek()!r}")

    def _pipeline(self, ends: set[str], *, in_range: bool = False) -> Pipeline:
        self._skip()
        names, declares = self._declaration(in_range=in_range)
        commands: list[tuple[Operand, ...]] = []
        while True:
            commands.append(self._command(first=not commands))
            self._skip()
            if self._peek() == "|":
                self._words.pop(0)
                self._skip()
                if self._peek() not in ends:
                    continue
            if self._peek() not in ends:
                raise TemplateError(f"unexpected {self._peek()!r} in a pipeline")
            break
        if declares:
            self._variables += names
        return Pipeline(tuple(commands), tuple(names), declares)

    def _declaration(self, *, in_range: bool) -> tuple[list[str], bool]:
        words = [word for word in self._words if word.kind != "space"]
        pattern = " ".join("$" if word.kind == "variable" else word.text for word in words[:4])
        found = re.match(r"\$ (:=|=)|\$ , \$ (:=|=)", pattern)
        if not found:
            return [], True
        if found[2] and not in_range:
            raise TemplateError("too many declarations")
        count = 2 if found[2] else 1
        names = [word.text for word in words if word.kind == "variable"][:count]
        declares = (found[1] or found[2]) == ":="
        for name in names:
            if not declares and name not in self._variables:
                raise TemplateError(f"undefined variable {name}")
        left = 4 if count == 2 else 2
        while left:
            left -= self._words.pop(0).kind != "space"
        return names, declares

    def _command(self, *, first: bool) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while True:
            spaced = self._skip()
            if not self._words or self._peek() in {"|", ")"}:
                break
            if operands and not spaced:
                raise TemplateError(f"unexpected {self._peek()!r} behind an operand")
            operands.append(self._operand())
        if not operands:
            raise TemplateError("a command is missing")
        head = operands[0]
        dead = isinstance(head, Literal) or head == Chain(".")
        if not first and dead:
            raise TemplateError("a constant cannot take the value of a pipeline")
        return tuple(operands)

    def _operand(self) -> Operand:
        word = self._words.pop(0)
        if word.kind == "word":
            return self._word(word.text)
        base: str | Pipeline
        fields: list[str] = []
        if word.kind == "field":
            base, fields = ".", [word.text[1:]]
        elif word.kind == "variable":
            if word.text not in self._variables:
                raise TemplateError(f"undefined variable {word.text}")
            base = word.text
        elif word.text == ".":
            base = "."
        elif word.text == "(":
            base = self._parenthesis()
        else:
            return Literal(_constant(word))
        while self._words and self._words[0].kind == "field":
            fields.append(self._words.pop(0).text[1:])
        return Chain(base, tuple(fields))

    def _parenthesis(self) -> Pipeline:
        self._deeper()
        pipeline = self._pipeline(ends={")"})
        self._words.pop(0)
        self._depth -= 1
        return pipeline

    def _word(self, name: str) -> Operand:
        if name in _CONSTANTS:
            return Literal(_CONSTANTS[name])
        if name not in FUNCTIONS:
            raise TemplateError(f"function {name!r} is not defined")
        return Function(name)


def _constant(word: Token) -> str | float:
    if word.kind == "string":
        return word.text[1:-1] if word.text[0] == "`" else unquote(word.text)
    if word.kind == "char":
        char = unquote(word.text)
        if len(char) != 1:
            raise TemplateError(f"{word.text} is no character")
        return ord(char)
    if word.kind == "number":
        return _number(word.text)
    raise TemplateError(f"unexpected {word.text!r}")


def _number(text: str) -> float:
    try:
        value = int(text, 8 if re.fullmatch(r"[-+]?0[0-7]+", text) else 0)
    except ValueError:
        pass
    else:
        if -(2**63) <= value < 2**63:
            return value
        raise TemplateError(f"the number {text} is too large")
    if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        return float(text)
    raise TemplateError(f"bad number {text!r}")


def unquote(text: str) -> str:
    """Return the value of a Go string or character in quotes; its escapes mean the same in Python."""
    plain = text.replace("\\\\", "")  # a backslash that is itself escaped hides what follows
    if re.search(rf"\\(?!{_ESCAPES}|{text[0]})", plain):
        raise TemplateError(f"bad escape in {text}")
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        raise TemplateError(f"bad quoted text {text}") from None
    assert isinstance(value, str)
    return value
