"""Manifests: YAML or JSON that says what a mesh shall be, read with positions and all mistakes at once.

``load`` gives protobuf messages for the kinds of the field (NetworkService, NetworkServiceEndpoint) and
frozen records for those of a mesh on one host (Workload, Endpoint, Link); ``dump`` is the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsmesh.model.manifest_dump import dump
from nsmesh.model.manifest_endpoint import read_endpoint
from nsmesh.model.manifest_errors import (
    MOST_ERRORS,
    ManifestError,
    ManifestErrors,
    Mark,
    Report,
    TooManyErrors,
)
from nsmesh.model.manifest_fields import Fields, fields, is_empty
from nsmesh.model.manifest_local import read_endpoint_process, read_link, read_workload
from nsmesh.model.manifest_records import (
    ANNOTATION,
    ENDPOINT_TYPES,
    KUBERNETES_ALPHA,
    KUBERNETES_V1,
    OUR_V1,
    Document,
    Endpoint,
    Link,
    LinkEnd,
    LivenessCheck,
    Workload,
)
from nsmesh.model.manifest_repair import Checked, propose
from nsmesh.model.manifest_service import read_service, read_service_alpha
from nsmesh.model.manifest_text import LARGEST, Chunk, check_characters, decode, split
from nsmesh.model.manifest_yaml import Mapping, Node, Scalar, compose
from nsmesh.model.names import nearest

__all__ = [
    "ANNOTATION",
    "ENDPOINT_TYPES",
    "Document",
    "Endpoint",
    "Link",
    "LinkEnd",
    "LivenessCheck",
    "ManifestError",
    "ManifestErrors",
    "Workload",
    "check_text",
    "dump",
    "kind_of",
    "load",
    "load_path",
]

SUFFIXES = (".yaml", ".yml", ".json")

_READERS: dict[tuple[str, str], Callable[[Fields], Document | None]] = {
    (KUBERNETES_V1, "NetworkService"): read_service,
    (KUBERNETES_ALPHA, "NetworkService"): read_service_alpha,
    (KUBERNETES_V1, "NetworkServiceEndpoint"): read_endpoint,
    (OUR_V1, "Workload"): read_workload,
    (OUR_V1, "Endpoint"): read_endpoint_process,
    (OUR_V1, "Link"): read_link,
}
_TOP = ("apiVersion", "kind", "metadata", "spec")


@dataclass(frozen=True, slots=True)
class _Found:
    """A document, where it begins, and what it is called in full."""

    document: Document
    source: str
    mark: Mark
    identity: tuple[str, str, str]


def load(text: str, source: str) -> list[Document]:
    """Return the documents of a text in order; an empty text has none.

    ``source`` names the text in errors. Raises :class:`ManifestErrors` with all that is wrong.
    """
    found, errors = _read(text, source)
    return _finish(found, errors)


def load_path(path: str | Path) -> list[Document]:
    """Return the documents of a file, or of the ``.yaml``, ``.yml`` and ``.json`` files of a directory.

    Files come sorted by name. Raises :class:`ManifestErrors` with all that is wrong in any of them.
    """
    place = Path(path)
    try:
        files = [place]
        if place.is_dir():
            files = sorted(item for item in place.iterdir() if item.suffix in SUFFIXES and item.is_file())
            if not files:
                remedy = f"name a directory with {', '.join(SUFFIXES)} files"
                raise ManifestErrors(
                    [ManifestError(str(path), 0, 0, "no manifest is in this directory", remedy)]
                )
    except OSError as error:
        raise ManifestErrors([_unreadable(place, error)]) from None
    found: list[_Found] = []
    errors: list[ManifestError] = []
    for file in files:
        more, wrong = _read_file(file)
        found += more
        errors += wrong
    return _finish(found, errors)


def check_text(text: str, source: str) -> None:
    """Raise :class:`ManifestErrors` if ``load`` would."""
    load(text, source)


def kind_of(document: Document) -> str:
    """Return the kind of a document, as it stands in a manifest."""
    return type(document).__name__


def _read_file(file: Path) -> tuple[list[_Found], list[ManifestError]]:
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            raw = stream.read(LARGEST + 1)
        if len(raw) > LARGEST:
            # the true size, where it is a file and no endless stream
            shown = size if size > LARGEST else f"more than {LARGEST}"
            what = f"the file has {shown} bytes; {LARGEST} are the most"
            return [], [ManifestError(str(file), 0, 0, what, "split it into several files")]
        return _read(decode(raw, str(file)), str(file))
    except OSError as error:
        return [], [_unreadable(file, error)]
    except ManifestError as error:
        return [], [error]


def _unreadable(file: Path, error: OSError) -> ManifestError:
    reason = error.strerror or type(error).__name__
    return ManifestError(
        str(file), 0, 0, f"the file cannot be read: {reason}", "check its name and permissions"
    )


def _read(text: str, source: str) -> tuple[list[_Found], list[ManifestError]]:
    try:
        check_characters(text, source)
        chunks = split(text, source)
    except ManifestError as error:
        return [], [error]
    found: list[_Found] = []
    errors: list[ManifestError] = []
    for chunk in chunks:
        more, checked = _read_chunk(chunk, source)
        wrong = list(checked.errors)
        if wrong:
            wrong = propose(chunk, source, checked, lambda other: _read_chunk(other, source)[1]) or wrong
        found += more
        errors += sorted(wrong, key=lambda error: (error.line, error.column))
        if len(errors) > MOST_ERRORS:
            break
    return found, errors


def _finish(found: Sequence[_Found], errors: list[ManifestError]) -> list[Document]:
    first: dict[tuple[str, str, str], _Found] = {}
    for item in found:
        other = first.setdefault(item.identity, item)
        if other is not item and item.identity[2]:
            kind, _, name = item.identity
            what = f"{kind} {name!r} is described twice, first in {other.source}:{other.mark.line}"
            errors.append(
                ManifestError(
                    item.source, item.mark.line, item.mark.column, what, "remove or rename one of them"
                )
            )
    if errors:
        raise ManifestErrors(errors)
    return [item.document for item in found]


def _read_chunk(chunk: Chunk, source: str) -> tuple[list[_Found], Checked]:
    try:
        nodes = compose(chunk, source)
    except ManifestError as error:
        return [], Checked([error], is_yaml=False)
    report = Report(source)
    found = []
    for node in nodes:
        try:
            document = _document(report, node)
        except TooManyErrors:
            break
        if document is not None:
            identity = (kind_of(document), _namespace(node), document.name)
            found.append(_Found(document, source, node.mark, identity))
    return found, Checked(report.errors, is_yaml=all(isinstance(node, Mapping) for node in nodes))


def _namespace(node: Node) -> str:
    metadata = node.get("metadata") if isinstance(node, Mapping) else None
    namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    return namespace.text if isinstance(namespace, Scalar) else ""


def _document(report: Report, node: Node) -> Document | None:
    if not isinstance(node, Mapping):
        fields(report, node, "", ())
        return None
    version, kind = (_word(report, node, name) for name in ("apiVersion", "kind"))
    if version is None or kind is None:
        return None
    reader = _READERS.get((version.text, kind.text))
    if reader is None:
        _wrong_kind(report, version, kind)
        return None
    known = _TOP if version.text == OUR_V1 else (*_TOP, "status")
    return reader(Fields(report, node, "", known))


def _word(report: Report, node: Mapping, name: str) -> Scalar | None:
    value = node.get(name)
    if isinstance(value, Scalar) and not is_empty(value):
        return value
    guess = nearest(name, [key.text for key, _ in node.entries[:20] if key.text not in _TOP])
    options = sorted({version if name == "apiVersion" else kind for version, kind in _READERS})
    remedy = f"did you mean it by {guess!r}?" if guess else f"write {name}: {' | '.join(options)}"
    report.add(value or node, f"{name} is missing", remedy)
    return None


def _wrong_kind(report: Report, version: Scalar, kind: Scalar) -> None:
    versions = sorted({known for known, _ in _READERS})
    if version.text in versions:
        kinds = [name for known, name in _READERS if known == version.text]
        elsewhere = [known for known, name in _READERS if name == kind.text]
        guess = nearest(kind.text, kinds)
        remedy = f"did you mean {guess!r}?" if guess else f"it has {', '.join(kinds)}"
        if elsewhere:
            remedy = f"write apiVersion: {elsewhere[0]}"
        place = version if elsewhere else kind
        report.add(place, f"{version.text} has no kind {kind.text!r}", remedy)
        return
    fitting = [known for known, name in _READERS if name == kind.text]
    guess = fitting[0] if len(fitting) == 1 else nearest(version.text, fitting or versions)
    remedy = f"did you mean {guess!r}?" if guess else f"write one of {', '.join(fitting or versions)}"
    report.add(version, f"unknown apiVersion {version.text!r}", remedy)
    if not fitting:
        close = nearest(kind.text, {name for _, name in _READERS})
        listed = ", ".join(sorted({name for _, name in _READERS}))
        report.add(
            kind, f"unknown kind {kind.text!r}", f"did you mean {close!r}?" if close else f"known: {listed}"
        )
