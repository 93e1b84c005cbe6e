"""What the control interface reads and answers, between wire form and our own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError

from nsmesh.api import control_pb2
from nsmesh.core.errors import Invalid
from nsmesh.model import manifest
from nsmesh.model.manifest import ManifestErrors
from nsmesh.standalone.check import located
from nsmesh.standalone.events import Event


def parsed(kind: Any, body: bytes) -> Any:
    """Return a message of a kind; raises Invalid for bytes that are none."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Invalid(f"the message is no {kind.DESCRIPTOR.full_name}: {error}") from error


def documents_of(manifests: Iterable[control_pb2.Manifest]) -> list[manifest.Document]:
    """Return the documents of all manifests, files of endpoints with full paths. Raises Invalid."""
    documents, wrong = [], []
    for found in manifests:
        try:
            read = manifest.load(found.text, found.source or "input")
        except ManifestErrors as error:
            wrong.append(str(error))
        else:
            documents += [located(document, found.directory) for document in read]
    if wrong:
        raise Invalid("\n".join(wrong))
    if not documents:
        raise Invalid("there is no document in what was given", remedy="write at least one")
    return documents


def kind_of(document: manifest.Document) -> str:
    """Return the word that commands have for a document's kind."""
    name = type(document).__name__.lower()
    return {"networkservice": "service", "networkserviceendpoint": "endpoint"}.get(name, name)


def step_of(event: Event) -> bytes:
    """Return an event as a step of a command, in wire form."""
    step = control_pb2.Step(
        text=event.text, json=json.dumps(event.row()), failed=event.failed, remedy=event.remedy
    )
    return step.SerializeToString()
