"""Values of selectors that are Go templates: ``{{ .nodeName }}`` with the labels of the request as data.

What does not parse, and what cannot be executed, stands for itself, as in the Go implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from nsmesh.model.template_functions import FUNCTIONS, LONGEST, MISSING, show, truth
from nsmesh.model.template_parse import parse
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
)

_MOST_STEPS = 10_000


def render(text: str, labels: Mapping[str, str]) -> str:
    """Return ``text`` with its actions replaced; ``text`` itself if it is no template that can be executed.

    An absent label gives ``<no value>``, through ``index`` the empty text. A template that would run for more
    than 10,000 steps or give more than 64 KiB counts as one that cannot be executed.
    """
    if "{{" not in text or len(text) > LONGEST:
        return text
    tree = _tree(text)
    if tree is None:
        return text
    try:
        return _Run(labels).text(tree)
    except TemplateError:
        return text


@lru_cache(maxsize=1024)
def _tree(text: str) -> list[Node] | None:
    try:
        return parse(text)
    except TemplateError:
        return None


class _Leave(Exception):
    """A jump out of the body of a range; no error."""

    def __init__(self, keyword: str) -> None:
        super().__init__(keyword)
        self.keyword = keyword


class _Run:
    """One execution: its variables, innermost last, and what is printed so far."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._variables: list[tuple[str, Any]] = [("$", labels)]
        self._out: list[str] = []
        self._size = 0
        self._steps = 0

    def text(self, tree: list[Node]) -> str:
        self._walk(tree, self._labels)
        return "".join(self._out)

    def _walk(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            self._step()
            match node:
                case Text():
                    self._print(node.text)
                case Action():
                    value = self._pipeline(node.pipeline, dot)
                    if not node.pipeline.variables:
                        self._print(show(MISSING if value is None else value))
                case Jump():
                    raise _Leave(node.keyword)
                case Branch():
                    known = len(self._variables)
                    try:
                        self._branch(node, dot)
                    finally:
                        del self._variables[known:]

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TemplateError("the template runs for too long")

    def _print(self, text: str) -> None:
        self._size += len(text)
        if self._size > LONGEST:
            raise TemplateError("the template gives too long a text")
        self._out.append(text)

    def _branch(self, node: Branch, dot: Any) -> None:
        if node.keyword == "range":
            self._range(node, dot)
            return
        value = self._pipeline(node.pipeline, dot)
        if truth(value):
            self._walk(node.body, value if node.keyword == "with" else dot)
        else:
            self._walk(node.otherwise, dot)

    def _range(self, node: Branch, dot: Any) -> None:
        names = node.pipeline.variables
        value = self._pipeline(Pipeline(node.pipeline.commands), dot)
        ran = False
        for key, item in self._items(value, pair=len(names) == 2):
            ran = True
            self._step()
            known = len(self._variables)
            for name, bound in zip(names, (key, item) if len(names) == 2 else (item,), strict=False):
                self._bind(name, bound, declares=node.pipeline.declares)
            try:
                self._walk(node.body, item)
            except _Leave as leave:
                if leave.keyword == "break":
                    break
            finally:
                del self._variables[known:]
        if not ran:
            self._walk(node.otherwise, dot)

    def _items(self, value: Any, *, pair: bool) -> Iterable[tuple[Any, Any]]:
        if value is MISSING:
            return ()
        if isinstance(value, Mapping):
            return [(key, value[key]) for key in sorted(value)]
        if type(value) is int:
            if pair:
                raise TemplateError("range over a number has one variable")
            return ((number, number) for number in range(value))
        raise TemplateError(f"range cannot go over {value!r}")

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = None
        for number, command in enumerate(pipeline.commands):
            self._step()
            value = self._command(command, dot, (value,) if number else ())
        for name in pipeline.variables:
            self._bind(name, value, declares=pipeline.declares)
        return value

    def _bind(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        for number in range(len(self._variables) - 1, -1, -1):
            if self._variables[number][0] == name:
                self._variables[number] = (name, value)
                return

    def _command(self, command: tuple[Operand, ...], dot: Any, final: tuple[Any, ...]) -> Any:
        head, *rest = command
        if isinstance(head, Function):
            return self._call(head.name, rest, dot, final)
        if rest or final:
            raise TemplateError("an argument for what is no function")
        if head == Literal(None):
            raise TemplateError("nil is not a command")
        return self._value(head, dot)

    def _call(self, name: str, rest: list[Operand], dot: Any, final: tuple[Any, ...]) -> Any:
        if name in {"and", "or"}:
            if not rest and not final:
                raise TemplateError(f"{name!r} needs an argument")
            for operand in rest:
                value = self._value(operand, dot)
                if truth(value) == (name == "or"):
                    return value
            return final[0] if final else value  # the last one, true or not
        args = [self._value(operand, dot) for operand in rest]
        return FUNCTIONS[name](*args, *final)

    def _value(self, operand: Operand, dot: Any) -> Any:
        match operand:
            case Literal():
                return operand.value
            case Function():
                return self._call(operand.name, [], dot, ())
            case Chain():
                return self._chain(operand, dot)

    def _chain(self, chain: Chain, dot: Any) -> Any:
        if isinstance(chain.base, Pipeline):
            value = self._pipeline(chain.base, dot)
        elif chain.base == ".":
            value = dot
        else:
            value = next(bound for name, bound in reversed(self._variables) if name == chain.base)
        for name in chain.fields:
            if value is MISSING:
                continue
            if not isinstance(value, Mapping):
                raise TemplateError(f"no field {name!r} in {show(value)}")
            value = value.get(name, MISSING)
        return value
