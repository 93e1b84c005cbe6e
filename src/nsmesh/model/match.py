"""Selection: which endpoints, and which forwarders, a request may go to.

Pure. The rules are those of the field: matches in order, the first whose source selector fits decides, unless
it finds nobody and falls through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from nsmesh.model.messages import FORWARDER_SERVICE, Match, NetworkService, NetworkServiceEndpoint
from nsmesh.model.template import render

Dropped = tuple[str, str]
"""Name of an endpoint, and why it is no candidate."""

POINT_TO_POINT: Mapping[str, str] = {"p2p": "true"}
"""What a forwarder must carry when the deciding match asks for nothing."""


@dataclass(frozen=True)
class Selection:
    """The outcome of matching.

    ``candidates``: who may be tried, in order; an endpoint that two routes want appears twice. ``rule``: the
    index of the match that decided, or None (the service has no matches, or none of them applied).
    ``dropped``: the others, each with the reason; worked out when it is asked for.
    """

    candidates: list[NetworkServiceEndpoint]
    rule: int | None
    _entries: Sequence[NetworkServiceEndpoint] = field(repr=False)
    _why: Callable[[NetworkServiceEndpoint], str] = field(repr=False)

    @cached_property
    def dropped(self) -> list[Dropped]:
        """Names that are no candidates, each with the reason."""
        kept = {id(entry) for entry in self.candidates}
        return [(entry.name, self._why(entry)) for entry in self._entries if id(entry) not in kept]


def is_subset(
    labels: Mapping[str, str], selector: Mapping[str, str], request_labels: Mapping[str, str]
) -> bool:
    """Return whether ``labels`` carry all that ``selector`` wants.

    A value fits if it is equal, literally or after rendering the selector's value as a template with
    ``request_labels``. An absent label counts as an empty one, but ``labels`` must not be fewer than wanted.
    """
    if len(labels) < len(selector):
        return False
    for key, wanted in selector.items():
        has = labels.get(key, "")
        if has != wanted and has != render(wanted, request_labels):
            return False
    return True


def match_endpoints(
    request_labels: Mapping[str, str], service: NetworkService, endpoints: Sequence[NetworkServiceEndpoint]
) -> Selection:
    """Return the endpoints that a request with these labels may go to, and what became of the others.

    ``endpoints`` are alive and offer ``service``; their labels under its name are what routes select by.
    """

    def find(match: Match) -> list[NetworkServiceEndpoint]:
        if not match.routes:
            return list(endpoints) if match.HasField("metadata") and not match.fallthrough else []
        return [
            endpoint
            for route in match.routes
            for endpoint in endpoints
            if is_subset(_labels(endpoint, service.name), route.destination_selector, request_labels)
        ]

    def why(match: Match, endpoint: NetworkServiceEndpoint) -> str:
        if not match.routes:
            return "the match has no routes"
        has = _labels(endpoint, service.name)
        wanted = " or ".join(_want(route.destination_selector, request_labels) for route in match.routes)
        return f"has {_words(has)}, but {wanted} is wanted"

    return _select(request_labels, service, endpoints, find, why)


def match_forwarders(
    labels: Mapping[str, str],
    service: NetworkService,
    forwarders: Sequence[NetworkServiceEndpoint],
    forwarder_service: str = FORWARDER_SERVICE,
) -> Selection:
    """Return the forwarders that may serve a request with these labels, by their labels under their service.

    The deciding match names the labels wanted in its metadata; without any, ``p2p: true`` is wanted.
    """

    def wanted(match: Match) -> Mapping[str, str]:
        return match.metadata.labels or POINT_TO_POINT

    def find(match: Match) -> list[NetworkServiceEndpoint]:
        return [
            forwarder
            for forwarder in forwarders
            if is_subset(_labels(forwarder, forwarder_service), wanted(match), labels)
        ]

    def why(match: Match, forwarder: NetworkServiceEndpoint) -> str:
        has = _labels(forwarder, forwarder_service)
        return f"has {_words(has)}, but {_want(wanted(match), labels)} is wanted"

    return _select(labels, service, forwarders, find, why)


def _select(
    labels: Mapping[str, str],
    service: NetworkService,
    entries: Sequence[NetworkServiceEndpoint],
    find: Callable[[Match], list[NetworkServiceEndpoint]],
    why: Callable[[Match, NetworkServiceEndpoint], str],
) -> Selection:
    if not service.matches:
        return Selection(list(entries), None, entries, lambda _: "")
    passed: list[tuple[int, Match]] = []
    for number, match in enumerate(service.matches):
        if not is_subset(labels, match.source_selector, labels):
            continue
        passed.append((number, match))
        found = find(match)
        if found or not match.fallthrough:
            return Selection(found, number, entries, lambda entry: _reasons(passed, entry, why))
    if passed:
        return Selection([], None, entries, lambda entry: _reasons(passed, entry, why) + "; no match is left")
    sources = " or ".join(_want(match.source_selector, labels) for match in service.matches)
    reason = (
        f"no match of {service.name!r} applies to a request with {_words(labels)}: {sources} is wanted of it"
    )
    return Selection([], None, entries, lambda _: reason)


def _reasons(
    passed: Iterable[tuple[int, Match]],
    entry: NetworkServiceEndpoint,
    why: Callable[[Match, NetworkServiceEndpoint], str],
) -> str:
    return "; ".join(f"match {number}: {why(match, entry)}" for number, match in passed)


def _labels(endpoint: NetworkServiceEndpoint, service: str) -> Mapping[str, str]:
    # asking a message map for a key that it lacks would add the key
    if service in endpoint.network_service_labels:
        return endpoint.network_service_labels[service].labels
    return {}


def _words(labels: Mapping[str, str]) -> str:
    if not labels:
        return "no labels"
    return "{" + ", ".join(f"{key}={labels[key]}" for key in sorted(labels)) + "}"


def _want(selector: Mapping[str, str], request_labels: Mapping[str, str]) -> str:
    return _words({key: render(value, request_labels) for key, value in selector.items()})
