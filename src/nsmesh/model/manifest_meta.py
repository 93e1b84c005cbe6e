"""The ``metadata`` that every document has: its name, labels and annotations."""

from __future__ import annotations

import re

from nsmesh.model.manifest_fields import Fields, text

KUBERNETES = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "selfLink",
)
"""What Kubernetes writes there, so that its own output can be read back."""
OURS = ("name", "labels", "annotations")

REGISTERED = re.compile(r"[A-Za-z0-9](?:[-_.~@A-Za-z0-9]*[A-Za-z0-9])?")
"""Names that network services and endpoints may be registered under: DNS names, also ``name@domain``."""


def object_name(document: Fields, spec: Fields | None) -> str:
    """Return the name of a Kubernetes object: ``spec.name``, else ``metadata.name``."""
    given = spec.text("name") if spec else ""
    if spec and given:
        node = spec.get("name")
        if node and not REGISTERED.fullmatch(given):
            remedy = "use letters, digits, '-', '_' and '.'"
            document.report.add(node, f"{spec.where('name')} cannot be {given!r}", remedy)
    metadata = document.mapping("metadata", KUBERNETES)
    if metadata is None:
        if not given and document.get("metadata") is None:
            document.require("metadata", "metadata: {name: ...}")
        return given
    metadata.labels("labels")
    metadata.labels("annotations")
    metadata.text("namespace")
    if not given:
        metadata.require("name", "a name of lower case letters, digits and '-'")
    own = metadata.name("name")
    return given or own


def named(document: Fields) -> tuple[str, Fields | None]:
    """Return the name of a document of our own kinds, and its metadata."""
    if not document.require("metadata", "metadata: {name: ...}"):
        return "", None
    metadata = document.mapping("metadata", OURS)
    if metadata is None:
        return "", None
    metadata.require("name", "a name of lower case letters, digits and '-'")
    return metadata.name("name"), metadata


def registered_names(found: Fields, name: str) -> tuple[str, ...]:
    """Return a list of names of network services, each at most once."""
    names: list[str] = []
    for node, path in found.items(name):
        value = text(found.report, node, path)
        if value is None:
            continue
        if not REGISTERED.fullmatch(value):
            remedy = "use letters, digits, '-', '_' and '.'"
            found.report.add(node, f"{path} cannot be {value!r}", remedy)
        if value in names:
            found.report.add(node, f"{found.where(name)} has {value!r} twice", "remove one of them")
        names.append(value)
    return tuple(names)
