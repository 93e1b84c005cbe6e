"""Reading fields out of nodes: typed, with every mistake noted and none of them fatal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from nsmesh.model.manifest_errors import Report
from nsmesh.model.manifest_yaml import Mapping, Node, Scalar, Sequence
from nsmesh.model.names import name_problem, name_suggestion, nearest

T = TypeVar("T")

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
"""What JSON can say."""

_NOUNS = {Scalar: "a single value", Sequence: "a list", Mapping: "a mapping"}


class Fields:
    """The fields of one mapping.

    Unknown ones are noted at once, with the nearest known one. A getter returns its default for a field that
    is absent or wrong; what is wrong is noted in the report.
    """

    def __init__(self, report: Report, node: Mapping, path: str, known: Iterable[str]) -> None:
        self.report = report
        self.node = node
        self.path = path
        self.known = tuple(known)
        self._values: dict[str, Node] = {}
        for key, value in node.entries:
            if key.text in self.known:
                self._values[key.text] = value
            else:
                self._unknown(key)

    def _unknown(self, key: Scalar) -> None:
        guess = nearest(key.text, self.known)
        listed = ", ".join(self.known) or "none"
        remedy = f"did you mean {guess!r}?" if guess else f"the fields here are: {listed}"
        where = f" in {self.path}" if self.path else ""
        self.report.add(key, f"unknown field {key.text!r}{where}", remedy)

    def where(self, name: str) -> str:
        """Return the path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        """Return whether the field is there, even without a value."""
        return name in self._values

    def get(self, name: str) -> Node | None:
        """Return the node of a field; None when it is absent or has no value."""
        node = self._values.get(name)
        return None if node is None or is_empty(node) else node

    def require(self, name: str, example: str) -> bool:
        """Note the absence of a field, with an example; return whether it has a value."""
        if self.get(name) is not None:
            return True
        self.report.add(
            self._values.get(name, self.node), f"{self.where(name)} is missing", f"write {example}"
        )
        return False

    def text(self, name: str, default: str = "", *, choices: Iterable[str] = ()) -> str:
        """Return a text, one of ``choices`` if there are any."""
        node = self.get(name)
        if node is None:
            return default
        value = text(self.report, node, self.where(name))
        options = tuple(choices)
        if value is None or (options and not self._chosen(node, name, value, options)):
            return default
        return value

    def _chosen(self, node: Node, name: str, value: str, options: tuple[str, ...]) -> bool:
        if value in options:
            return True
        guess = nearest(value, options)
        remedy = f"did you mean {guess!r}?" if guess else f"write one of {', '.join(options)}"
        self.report.add(node, f"{self.where(name)} cannot be {value!r}", remedy)
        return False

    def name(self, name: str) -> str:
        """Return a text that must be a DNS-1123 name."""
        value = self.text(name)
        node = self.get(name)
        if value and node:
            check_name(self.report, node, value)
        return value

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """Return a truth value."""
        node = self.get(name)
        if node is None:
            return default
        if isinstance(node, Scalar) and node.plain and node.text.lower() in {"true", "false"}:
            return node.text.lower() == "true"
        self.report.add(node, f"{self.where(name)} must be true or false{_but(node)}", "write true or false")
        return default

    def integer(self, name: str, low: int, high: int, default: int = 0) -> int:
        """Return a whole number from ``low`` to ``high``."""
        node = self.get(name)
        if node is None:
            return default
        value = plain(node) if isinstance(node, Scalar) and node.kind == "int" else None
        if type(value) is int and low <= value <= high:
            return value
        what = f"{self.where(name)} must be a whole number from {low} to {high}{_but(node)}"
        self.report.add(node, what, "write a number")
        return default

    def mapping(self, name: str, known: Iterable[str]) -> Fields | None:
        """Return the fields of a mapping."""
        node = self.get(name)
        return None if node is None else fields(self.report, node, self.where(name), known)

    def entries(self, name: str) -> list[tuple[Scalar, Node]]:
        """Return keys and values of a mapping whose keys are free."""
        node = self.get(name)
        if node is None:
            return []
        if isinstance(node, Mapping):
            return node.entries
        self.report.add(node, f"{self.where(name)} must be a mapping{_but(node)}", _mapping_remedy(node))
        return []

    def items(self, name: str) -> Iterator[tuple[Node, str]]:
        """Yield the items of a list, each with its path."""
        node = self.get(name)
        if isinstance(node, Sequence):
            yield from ((item, f"{self.where(name)}[{number}]") for number, item in enumerate(node.items))
        elif node is not None:
            what = f"{self.where(name)} must be a list{_but(node)}"
            self.report.add(node, what, "begin each item with '- '")

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        found = (text(self.report, node, path) for node, path in self.items(name))
        return tuple(value for value in found if value is not None)

    def labels(self, name: str) -> dict[str, str]:
        """Return a mapping of texts; numbers count as they are written, truth values must be quoted."""
        out: dict[str, str] = {}
        for key, node in self.entries(name):
            if is_empty(node) and ":" in key.text:
                what = f"{key.text!r} in {self.where(name)} has no value"
                self.report.add(key, what, _mapping_remedy(key))
                continue
            value = text(self.report, node, f"{self.where(name)}.{key.text}")
            if value is not None:
                out[key.text] = value
        return out

    def each(self, name: str, read: Callable[[Report, Node, str], T | None]) -> list[T]:
        """Return what ``read`` makes of the items of a list, without those that it could not read."""
        made = (read(self.report, node, path) for node, path in self.items(name))
        return [item for item in made if item is not None]


def fields(report: Report, node: Node, path: str, known: Iterable[str]) -> Fields | None:
    """Return the fields of a node that must be a mapping, or None."""
    if isinstance(node, Mapping):
        return Fields(report, node, path, known)
    report.add(node, f"{path or 'the document'} must be a mapping{_but(node)}", _mapping_remedy(node))
    return None


def text(report: Report, node: Node, path: str) -> str | None:
    """Return the text of a scalar, or None."""
    if not isinstance(node, Scalar):
        report.add(node, f"{path} must be a text{_but(node)}", "write one value")
        return None
    if is_empty(node):
        report.add(node, f"{path} has no value", 'write one, or "" for the empty text')
        return None
    if node.kind == "bool":
        report.add(node, f"{path}: {node.text} is a truth value, not a text", f'quote it: "{node.text}"')
        return None
    return node.text


def check_name(report: Report, node: Node, name: str) -> None:
    """Note why a name is no DNS-1123 name, with one that would be."""
    problem = name_problem(name)
    if problem:
        guess = name_suggestion(name)
        remedy = f"write {guess!r}" if guess else "choose a name of lower case letters, digits and '-'"
        report.add(node, problem, remedy)


def is_empty(node: Node) -> bool:
    """Return whether a field has no value: ``key:`` with nothing behind it, ``~`` or ``null``."""
    return isinstance(node, Scalar) and node.kind == "null" and node.plain


def plain(node: Node) -> Plain:
    """Return the node as plain data, by the rules of YAML 1.1."""
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    if isinstance(node, Mapping):
        return {key.text: plain(value) for key, value in node.entries}
    try:
        return _constant(node)
    except ValueError:
        return node.text


def _constant(node: Scalar) -> str | int | float | bool | None:
    word = node.text.replace("_", "").lower()
    if node.kind == "null":
        return None
    if node.kind == "bool":
        return word in {"true", "yes", "on"}
    if node.kind == "int":
        digits = word.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
        return int(word, 8 if octal else 0)
    if node.kind == "float":
        return float(word.replace(".inf", "inf").replace(".nan", "nan"))
    return node.text


def _but(node: Node) -> str:
    if isinstance(node, Scalar):
        shown = node.text if len(node.text) <= 40 else node.text[:37] + "..."
        return f", but there stands {shown!r}"
    return f", but there stands {_NOUNS[type(node)]}"


def _mapping_remedy(node: Node) -> str:
    if isinstance(node, Scalar) and node.plain and ":" in node.text:
        key, _, value = node.text.partition(":")
        return f"write '{key}: {value.strip()}', with a blank behind the colon"
    return "write 'key: value' lines below it, indented"
