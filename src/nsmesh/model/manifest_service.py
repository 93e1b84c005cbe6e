"""NetworkService manifests: the v1 form that Kubernetes takes, and the v1alpha1 form of 2019."""

from __future__ import annotations

from nsmesh.model.manifest_errors import Report
from nsmesh.model.manifest_fields import Fields, fields, is_empty
from nsmesh.model.manifest_meta import object_name
from nsmesh.model.manifest_yaml import Mapping, Node
from nsmesh.model.messages import PAYLOADS, Destination, Match, NetworkService

_LARGEST_WEIGHT = 2**32 - 1


def read_service(document: Fields) -> NetworkService:
    """Return the NetworkService of an ``apiVersion: networkservicemesh.io/v1`` document.

    An absent payload stays empty; the registry decides.
    """
    spec = document.mapping("spec", ("name", "payload", "matches", "path_ids"))
    service = NetworkService(name=object_name(document, spec))
    if spec:
        service.payload = spec.text("payload", choices=PAYLOADS)
        service.matches.extend(spec.each("matches", _match))
        service.path_ids.extend(spec.texts("path_ids"))
    return service


def _match(report: Report, node: Node, path: str) -> Match | None:
    found = fields(report, node, path, ("source_selector", "routes", "fallthrough", "metadata"))
    if found is None:
        return None
    match = Match(source_selector=found.labels("source_selector"), routes=found.each("routes", _route))
    match.fallthrough = found.boolean("fallthrough")
    metadata = found.mapping("metadata", ("labels",))
    if metadata:
        match.metadata.SetInParent()  # empty metadata has a meaning of its own
        match.metadata.labels.update(metadata.labels("labels"))
    return match


def _route(report: Report, node: Node, path: str) -> Destination | None:
    found = fields(report, node, path, ("destination_selector", "weight"))
    if found is None:
        return None
    weight = found.integer("weight", 0, _LARGEST_WEIGHT)
    return Destination(destination_selector=found.labels("destination_selector"), weight=weight)


def read_service_alpha(document: Fields) -> NetworkService:
    """Return the NetworkService of an ``apiVersion: networkservicemesh.io/v1alpha1`` document.

    There each item begins with ``match:`` or ``destination:``, mostly without a value: what it is about
    stands beside it, or below it.
    """
    spec = document.mapping("spec", ("payload", "matches"))
    service = NetworkService(name=object_name(document, None))
    if spec:
        service.payload = spec.text("payload", choices=PAYLOADS)
        service.matches.extend(spec.each("matches", _alpha_match))
    return service


def _alpha_match(report: Report, node: Node, path: str) -> Match | None:
    found = _unwrap(report, node, path, "match", ("sourceSelector", "route"))
    if found is None:
        return None
    return Match(source_selector=found.labels("sourceSelector"), routes=found.each("route", _alpha_route))


def _alpha_route(report: Report, node: Node, path: str) -> Destination | None:
    found = _unwrap(report, node, path, "destination", ("destinationSelector", "weight"))
    if found is None:
        return None
    weight = found.integer("weight", 0, _LARGEST_WEIGHT)
    return Destination(destination_selector=found.labels("destinationSelector"), weight=weight)


def _unwrap(report: Report, node: Node, path: str, word: str, known: tuple[str, ...]) -> Fields | None:
    """Return the fields beside ``word``, or those below it; not both at once."""
    outer = fields(report, node, path, (word, *known))
    inner = outer.node.get(word) if outer else None
    if outer is None or inner is None or is_empty(inner):
        return outer
    if not isinstance(inner, Mapping) or not inner.entries:
        return outer if isinstance(inner, Mapping) else fields(report, inner, f"{path}.{word}", known)
    beside = [name for name in known if outer.has(name)]
    if beside:
        what = f"{path} has fields below {word!r} and beside it"
        report.add(outer.node.get(beside[0]) or node, what, f"write all of them beside {word!r}")
    return fields(report, inner, f"{path}.{word}", known)
