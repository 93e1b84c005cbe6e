"""Find's templates: which entries a query means. Pure.

A template is an entry whose empty fields match anything. The other fields of an entry (``path_ids``,
``initial_registration_time``) are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from nsmesh.model.messages import (
    Entry,
    Found,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
    Query,
)

E = TypeVar("E", bound=Entry)


def service_matches(template: NetworkService, service: NetworkService) -> bool:
    """Say whether ``service`` is meant: equal name and payload, deeply equal matches, each where given."""
    return (
        (not template.name or template.name == service.name)
        and (not template.payload or template.payload == service.payload)
        and (not template.matches or template.matches == service.matches)
    )


def endpoint_matches(template: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    """Say whether ``endpoint`` is meant, each rule where its field is given.

    Equal name; service names and labels a subset of the endpoint's; the URL a part of the endpoint's; equal
    whole seconds of the expiration time.
    """
    return (
        (not template.name or template.name == endpoint.name)
        and (not template.url or template.url in endpoint.url)
        and (
            not template.HasField("expiration_time")
            or template.expiration_time.seconds == endpoint.expiration_time.seconds
        )
        and all(name in endpoint.network_service_names for name in template.network_service_names)
        and _labels_match(template, endpoint)
    )


def _labels_match(template: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    for service, wanted in template.network_service_labels.items():
        if service not in endpoint.network_service_labels:
            return False
        labels = endpoint.network_service_labels[service].labels
        for key, value in wanted.labels.items():
            if key not in labels or labels[key] != value:
                return False
    return True


def services_of(endpoint: NetworkServiceEndpoint) -> tuple[str, ...]:
    """Return the names of the services that an endpoint provides, or a template asks for, each once."""
    return tuple(dict.fromkeys(endpoint.network_service_names))


def no_services(service: NetworkService) -> tuple[str, ...]:  # noqa: ARG001 - it takes any service
    """Return nothing: a service has no services to be found by."""
    return ()


@dataclass(frozen=True, slots=True)
class Kind(Generic[E]):
    """Services or endpoints: what their messages are called and how their templates match."""

    word: str
    """For texts: ``network service``."""
    entry: type[E]
    matches: Callable[[E, E], bool]
    """(template, entry) -> whether the entry is meant."""
    services: Callable[[E], tuple[str, ...]]
    """Names of services by which an entry is indexed, and a template narrows a search."""
    body: str
    """The field of queries and answers that holds the entry."""
    queries: type[Any]
    answers: type[Any]

    def query(self, template: E, *, watch: bool = False) -> Query:
        """Return the query for ``template``, of which it holds a copy."""
        query: Query = self.queries(**{self.body: template}, watch=watch)
        return query

    def found(self, entry: E, *, deleted: bool = False) -> Found:
        """Return the answer about ``entry``, of which it holds a copy."""
        found: Found = self.answers(**{self.body: entry}, deleted=deleted)
        return found

    def template(self, query: Query) -> E:
        """Return a query's body; one that has none stands for everything, like an empty one."""
        return cast("E", getattr(query, self.body))

    def content(self, found: Found) -> E:
        """Return the entry of an answer."""
        return cast("E", getattr(found, self.body))


SERVICE: Kind[NetworkService] = Kind(
    word="network service",
    entry=NetworkService,
    matches=service_matches,
    services=no_services,
    body="network_service",
    queries=NetworkServiceQuery,
    answers=NetworkServiceResponse,
)

ENDPOINT: Kind[NetworkServiceEndpoint] = Kind(
    word="network service endpoint",
    entry=NetworkServiceEndpoint,
    matches=endpoint_matches,
    services=services_of,
    body="network_service_endpoint",
    queries=NetworkServiceEndpointQuery,
    answers=NetworkServiceEndpointResponse,
)


def own_query(entry: Entry, *, watch: bool) -> Query:
    """Return the query for the one entry that has ``entry``'s name."""
    if isinstance(entry, NetworkServiceEndpoint):
        return ENDPOINT.query(NetworkServiceEndpoint(name=entry.name), watch=watch)
    return SERVICE.query(NetworkService(name=entry.name), watch=watch)


def content_of(found: Found) -> Entry:
    """Return the entry that an answer is about."""
    if isinstance(found, NetworkServiceEndpointResponse):
        return found.network_service_endpoint
    return found.network_service
