"""Reading the kinds of ``apiVersion: nsmesh/v1``: Workload, Endpoint, Link."""

from __future__ import annotations

import re

from nsmesh.model.manifest_errors import Mark, Report
from nsmesh.model.manifest_fields import Fields, Plain, fields, plain
from nsmesh.model.manifest_liveness import read_liveness
from nsmesh.model.manifest_meta import named, registered_names
from nsmesh.model.manifest_records import (
    ALWAYS,
    ANNOTATION,
    ENDPOINT_TYPES,
    NEVER,
    RESTARTS,
    Endpoint,
    Link,
    LinkEnd,
    Workload,
)
from nsmesh.model.manifest_yaml import Node, Scalar
from nsmesh.model.messages import PAYLOADS
from nsmesh.model.names import interface_problem, nearest
from nsmesh.model.net import address_problem, host_problem, prefix_problem, same_family
from nsmesh.model.nsurl import NetworkServiceUrl, NsUrlError, parse_list
from nsmesh.model.wire import Route

_CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*|[^:]*/[^:/]+\.py:[A-Za-z_]\w*")
_LARGEST_PID = 2**22
_SMALLEST_MTU, _LARGEST_MTU = 68, 65_535


def read_workload(document: Fields) -> Workload:
    """Return what a ``kind: Workload`` document describes."""
    name, metadata = named(document)
    known = ("command", "args", "env", "netns", "pid", "workdir", "restart", "node", "liveness")
    spec = document.mapping("spec", known)
    workload = Workload(
        name,
        _services(metadata),
        metadata.labels("labels") if metadata else {},
        metadata.labels("annotations") if metadata else {},
    )
    if spec is None:
        return workload
    command, args = spec.texts("command"), spec.texts("args")
    if args and not command and not spec.has("command"):
        spec.require("command", "command: [PROGRAM], which the args are for")
    pid = spec.integer("pid", 1, _LARGEST_PID)
    netns = _netns(spec)
    node = spec.get("pid")
    if pid and netns and node:
        spec.report.add(node, f"{spec.path} has both netns and pid", "remove one of them")
    return Workload(
        name,
        workload.services,
        workload.labels,
        workload.annotations,
        command,
        args,
        _env(spec),
        netns,
        pid,
        spec.text("workdir"),
        spec.text("restart", NEVER, choices=RESTARTS),
        spec.name("node"),
        read_liveness(spec),
    )


def _services(metadata: Fields | None) -> tuple[NetworkServiceUrl, ...]:
    """Return the wishes in the annotation; a mistake is shown at its place in the file."""
    for key, node in metadata.entries("annotations") if metadata else []:
        if metadata and key.text == ANNOTATION and isinstance(node, Scalar):
            try:
                return tuple(parse_list(node.text))
            except NsUrlError as error:
                place, what = node.mark, f"in the annotation {ANNOTATION}, {error}"
                if node.offset is not None:
                    place = Mark(node.mark.line, node.mark.column + node.offset + error.position - 1)
                    what = f"in the annotation {ANNOTATION}: {error.what} - {error.remedy}"
                metadata.report.add(place, what)
    return ()


def _env(spec: Fields) -> dict[str, str]:
    env = spec.labels("env")
    for key, _ in spec.entries("env"):
        if not key.text or "=" in key.text:
            spec.report.add(key, f"{key.text!r} is no name of a variable", "write NAME: value")
    return env


def _netns(spec: Fields) -> str:
    value = spec.text("netns")
    node = spec.get("netns")
    if node and value and not value.startswith("/") and ("/" in value or value in {".", ".."}):
        remedy = "write the name that 'ip netns' lists, or a path that begins with /"
        spec.report.add(
            node, f"{spec.where('netns')}: {value!r} is neither a name nor an absolute path", remedy
        )
    return value


def read_endpoint_process(document: Fields) -> Endpoint:
    """Return what a ``kind: Endpoint`` document describes."""
    name, metadata = named(document)
    labels = metadata.labels("labels") if metadata else {}
    annotations = metadata.labels("annotations") if metadata else {}
    known = ("type", "services", "labels", "options", "env", "payload", "netns", "restart", "node")
    spec = (
        document.mapping("spec", known)
        if document.require("spec", "spec: {type: ..., services: [...]}")
        else None
    )
    if spec is None:
        return Endpoint(name, "", (), object_labels=labels, annotations=annotations)
    spec.require("services", "services: [NAME]")
    return Endpoint(
        name,
        _endpoint_type(spec),
        registered_names(spec, "services"),
        spec.labels("labels"),
        _options(spec),
        _env(spec),
        spec.text("payload", choices=PAYLOADS),
        _netns(spec),
        spec.text("restart", ALWAYS, choices=RESTARTS),
        labels,
        annotations,
        spec.name("node"),
    )


def _endpoint_type(spec: Fields) -> str:
    if not spec.require(
        "type", f"type: {' | '.join(ENDPOINT_TYPES)} | package.module:Class | ./file.py:Class"
    ):
        return ""
    value = spec.text("type")
    node = spec.get("type")
    if node and value and value not in ENDPOINT_TYPES and not _CLASS.fullmatch(value):
        guess = nearest(value, ENDPOINT_TYPES)
        others = f"{', '.join(ENDPOINT_TYPES)}, package.module:Class, or ./file.py:Class"
        remedy = f"did you mean {guess!r}?" if guess else f"write one of {others}"
        spec.report.add(node, f"there is no endpoint type {value!r}", remedy)
    return value


def _options(spec: Fields) -> dict[str, Plain]:
    return {key.text: plain(value) for key, value in spec.entries("options")}


def read_link(document: Fields) -> Link | None:
    """Return what a ``kind: Link`` document describes, or None when its two ends cannot be read."""
    name, metadata = named(document)
    spec = (
        document.mapping("spec", ("ends", "mtu")) if document.require("spec", "spec: {ends: [...]}") else None
    )
    if spec is None or not spec.require(
        "ends", "ends: [{of: ..., interface: ...}, {of: ..., interface: ...}]"
    ):
        return None
    ends = spec.each("ends", _end)
    count = sum(1 for _ in spec.items("ends"))
    node = spec.get("ends")
    if node and count != 2:
        spec.report.add(node, f"a link has two ends, but {count} are given", "write two items in spec.ends")
    if len(ends) != 2:
        return None
    if node and (ends[0].of, ends[0].interface) == (ends[1].of, ends[1].interface):
        spec.report.add(
            node, f"both ends are {ends[0].interface!r} of {ends[0].of!r}", "name one of them otherwise"
        )
    labels = metadata.labels("labels") if metadata else {}
    annotations = metadata.labels("annotations") if metadata else {}
    mtu = spec.integer("mtu", _SMALLEST_MTU, _LARGEST_MTU)
    return Link(name, (ends[0], ends[1]), mtu, labels, annotations)


def _end(report: Report, node: Node, path: str) -> LinkEnd | None:
    found = fields(report, node, path, ("of", "interface", "addresses", "routes"))
    if found is None:
        return None
    found.require("of", "of: NAME of a workload or endpoint")
    interface = found.text("interface")
    place = found.get("interface")
    if found.require("interface", "interface: NAME, 15 characters at most") and place and interface:
        problem = interface_problem(interface)
        if problem:
            report.add(
                place,
                problem,
                f"shorten it, for example to {interface[:15]!r}" if len(interface) > 15 else "",
            )
    addresses = found.texts("addresses")
    for item, where in found.items("addresses"):
        problem, remedy = address_problem(item.text) if isinstance(item, Scalar) else ("", "")
        if problem:
            report.add(item, f"{where}: {problem}", remedy)
    return LinkEnd(found.name("of"), interface, addresses, tuple(found.each("routes", _route)))


def _route(report: Report, node: Node, path: str) -> Route | None:
    found = fields(report, node, path, ("prefix", "via"))
    if found is None or not found.require("prefix", "prefix: 10.0.0.0/8"):
        return None
    prefix, via = found.text("prefix"), found.text("via")
    for name, value, check in (("prefix", prefix, prefix_problem), ("via", via, host_problem)):
        problem, remedy = check(value) if value else ("", "")
        place = found.get(name)
        if problem and place:
            report.add(place, f"{found.where(name)}: {problem}", remedy)
            return None
    if via and prefix and not same_family(prefix, via):
        report.add(
            node, f"{path}: {prefix} and {via} are of different IP versions", "use a gateway of the same one"
        )
    return Route(prefix, via)
