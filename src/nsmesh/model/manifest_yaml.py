"""YAML, read safely: from text to a tree of nodes with positions, and nothing is ever constructed.

What a hostile or careless file can do is bounded before it costs: depth and number of nodes while parsing,
the growth by aliases by counting instead of copying.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from nsmesh.model.manifest_errors import ManifestError, Mark
from nsmesh.model.manifest_text import Chunk

DEEPEST = 40
"""Levels of nesting."""
MOST_NODES = 50_000
"""Nodes of one document, with its aliases written out."""

_CORE = "tag:yaml.org,2002:"
_TEXT = f"{_CORE}str"
_KINDS = {f"{_CORE}{name}": name for name in ("str", "int", "float", "bool", "null")}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: ``text`` as written (quotes and escapes resolved).

    ``kind`` is what YAML takes it for: str, int, float, bool or null. ``plain``: it has no quotes.
    ``offset``: columns from ``mark`` to the first character of ``text``, or None where the file has it in
    another form (several lines, escapes).
    """

    text: str
    kind: str
    mark: Mark
    plain: bool = True
    offset: int | None = None
    size: int = 1


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list. ``size`` counts nodes, aliases written out."""

    items: list[Node]
    mark: Mark
    size: int = 1


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping in the order of the file, its keys without repetition."""

    entries: list[tuple[Scalar, Node]]
    mark: Mark
    size: int = 1

    def get(self, key: str) -> Node | None:
        """Return the value of a key, or None."""
        return next((value for name, value in self.entries if name.text == key), None)


Node = Scalar | Sequence | Mapping


def compose(chunk: Chunk, source: str) -> list[Node]:
    """Return the documents of a chunk, without the empty ones. Raises :class:`ManifestError`."""
    return _Composer(chunk, source).documents()


@dataclass
class _Open:
    """A list or mapping that is not complete yet."""

    node: Sequence | Mapping
    anchor: str | None
    size: int = 1
    key: Scalar | None = None
    seen: set[str] = field(default_factory=set)
    merged: list[tuple[Scalar, Node]] = field(default_factory=list)

    def done(self) -> Node:
        """Return the complete node; what ``<<`` took over comes last, and yields to what is there."""
        if isinstance(self.node, Sequence):
            return Sequence(self.node.items, self.node.mark, self.size)
        entries = list(self.node.entries)
        for key, value in self.merged:
            if key.text not in self.seen:
                self.seen.add(key.text)
                entries.append((key, value))
        return Mapping(entries, self.node.mark, self.size)


class _Composer:
    """Builds nodes from the events of the parser, iteratively."""

    def __init__(self, chunk: Chunk, source: str) -> None:
        self._chunk = chunk
        self._source = source
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._resolver = yaml.resolver.Resolver()
        self._documents: list[Node] = []

    def documents(self) -> list[Node]:
        for event in self._events():
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
            elif isinstance(event, yaml.ScalarEvent):
                self._add(self._scalar(event), event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                ended = self._open.pop()
                self._add(ended.done(), ended.anchor)
        return [node for node in self._documents if not (isinstance(node, Scalar) and _is_nothing(node))]

    def _events(self) -> Iterator[yaml.Event]:
        try:
            text = self._chunk.text
            if text.lstrip().startswith(("{", "[")):
                text = text.replace("\t", " ")  # JSON may be indented with tabs, and has none in its texts
            yield from yaml.parse(text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            raise ManifestError(self._source, self._chunk.first, 1, str(error.reason), "remove it") from None
        except yaml.MarkedYAMLError as error:
            open_ended = "end of stream" in (error.problem or "") or "<stream end>" in (error.problem or "")
            at = error.context_mark if open_ended and error.context_mark else error.problem_mark
            mark = self._mark(at or error.context_mark)
            raise ManifestError(self._source, mark.line, mark.column, *_explain(error)) from None
        except (ValueError, OverflowError) as error:  # numbers that no character has, in escapes
            raise ManifestError(
                self._source, self._chunk.first, 1, f"not valid YAML: {error}", "check the escapes"
            ) from None

    def _mark(self, mark: Any) -> Mark:
        # PyYAML has two classes of marks, with the same attributes
        return Mark(mark.line + self._chunk.first, mark.column + 1) if mark else Mark(self._chunk.first, 1)

    def _fail(self, mark: Mark, what: str, remedy: str) -> ManifestError:
        return ManifestError(self._source, mark.line, mark.column, what, remedy)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        mark = self._mark(event.start_mark)
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        elif tag not in _KINDS:
            raise self._fail(mark, f"the tag {tag!r} is not allowed", "remove the tag")
        kind = _KINDS.get(tag, "str")
        if kind in {"int", "float"} and ":" in event.value:
            kind = "str"  # a number to the base of sixty is a MAC address or a time to everybody else
        quote = 0 if event.style is None else 1
        end = self._mark(event.end_mark)
        as_is = end.line == mark.line and end.column - mark.column - 2 * quote == len(event.value)
        return Scalar(self._readable(event.value, mark), kind, mark, not quote, quote if as_is else None)

    def _readable(self, value: str, mark: Mark) -> str:
        """Join the halves of characters that JSON escapes in two; refuse what is no text after that."""
        if "\0" in value:
            raise self._fail(mark, "the escape of a zero character is not allowed", "remove it")
        try:
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._fail(
                mark, "an escape here stands for half a character", "write the whole one"
            ) from None

    def _alias(self, event: yaml.AliasEvent) -> None:
        mark = self._mark(event.start_mark)
        node = self._anchors.get(event.anchor or "")
        if node is None:
            open_anchors = {item.anchor for item in self._open}
            why = "contains itself" if event.anchor in open_anchors else "is not known here"
            raise self._fail(mark, f"the anchor {event.anchor!r} {why}", "write the value itself")
        self._add(node, None, mark)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        mark = self._mark(event.start_mark)
        if len(self._open) >= DEEPEST:
            raise self._fail(mark, f"nested more than {DEEPEST} levels deep", "write it flatter")
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in {None, "!", f"{_CORE}{'seq' if is_list else 'map'}"}:
            raise self._fail(mark, f"the tag {event.tag!r} is not allowed", "remove the tag")
        self._open.append(_Open(Sequence([], mark) if is_list else Mapping([], mark), event.anchor))

    def _add(self, node: Node, anchor: str | None, mark: Mark | None = None) -> None:
        """Put a complete node where it belongs; ``mark`` is that of an alias."""
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self._documents.append(node)
            return
        parent = self._open[-1]
        parent.size += node.size
        if parent.size > MOST_NODES:
            counted = " with its aliases written out" if mark else ""
            remedy = "use fewer aliases" if mark else "split it into several documents"
            what = f"the document has more than {MOST_NODES} values{counted}"
            raise self._fail(mark or node.mark, what, remedy)
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None:
            parent.key = self._key(parent, node, mark or node.mark)
        else:
            self._value(parent, parent.node, parent.key, node)
            parent.key = None

    def _key(self, parent: _Open, node: Node, mark: Mark) -> Scalar:
        if not isinstance(node, Scalar):
            raise self._fail(mark, "a list or mapping cannot be a key", "write a word in front of the colon")
        if _is_nothing(node):
            raise self._fail(mark, "a key is missing", "write a word in front of the colon")
        if node.kind == "bool":
            remedy = f'quote it: "{node.text}"'
            raise self._fail(mark, f"the key {node.text} is a truth value to YAML", remedy)
        if node.text in parent.seen:
            raise self._fail(mark, f"the key {node.text!r} is there twice", "remove one of them")
        parent.seen.add(node.text)
        return node

    def _value(self, parent: _Open, mapping: Mapping, key: Scalar, value: Node) -> None:
        if key.text == "<<" and key.plain:
            parent.seen.discard("<<")
            for source in value.items if isinstance(value, Sequence) else [value]:
                if not isinstance(source, Mapping):
                    raise self._fail(
                        key.mark, "'<<' can take over mappings only", "name the anchor of a mapping"
                    )
                parent.merged += source.entries
            return
        mapping.entries.append((key, value))


def _is_nothing(node: Scalar) -> bool:
    return node.plain and node.kind == "null"


def _explain(error: yaml.MarkedYAMLError) -> tuple[str, str]:
    """Return what is wrong, and a remedy, for a complaint of the parser."""
    problem = error.problem or "not valid YAML"
    what = f"not valid YAML: {problem}" + (f" ({error.context})" if error.context else "")
    if "'\\t'" in problem:
        return "a tab stands where YAML wants blanks", "indent with blanks, never with tabs"
    if "mapping values are not allowed" in problem:
        return (
            what,
            "a line above lacks a blank behind its colon (write 'key: value'), or this line's indentation",
        )
    if "could not find expected ':'" in problem:
        return what, "write 'key: value', with the colon and a blank behind it"
    if "expected <block end>" in problem:
        return what, "indent this line like those that it belongs to; items of a list begin with '- '"
    if "cannot start any token" in problem:
        return what, "put the value in double quotes"
    return what, "check the colons, quotes, brackets and indentation here and in the line above"
