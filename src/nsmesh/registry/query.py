"""Find's templates: which entries a query means. Pure.

A template is an entry whose empty fields match anything. The other fields of an entry (``path_ids``,
``initial_registration_time``) are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from nsmesh.model.copying import copy_of
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


def service_matcher(template: NetworkService) -> Callable[[NetworkService], bool]:
    """Return what says whether a service is meant: equal name, payload and matches, each where given."""
    checks: list[Callable[[NetworkService], bool]] = []
    if name := template.name:
        checks.append(lambda service: service.name == name)
    if payload := template.payload:
        checks.append(lambda service: service.payload == payload)
    if template.matches:
        matches = list(copy_of(template).matches)
        checks.append(lambda service: service.matches == matches)
    return _all_of(checks)


def endpoint_matcher(template: NetworkServiceEndpoint) -> Callable[[NetworkServiceEndpoint], bool]:
    """Return what says whether an endpoint is meant, each rule where its field is given.

    Equal name; service names and labels a subset of the endpoint's; the URL a part of the endpoint's; equal
    whole seconds of the expiration time.
    """
    checks: list[Callable[[NetworkServiceEndpoint], bool]] = []
    if name := template.name:
        checks.append(lambda endpoint: endpoint.name == name)
    if url := template.url:
        checks.append(lambda endpoint: url in endpoint.url)
    if template.HasField("expiration_time"):
        expires = template.expiration_time.seconds
        checks.append(lambda endpoint: endpoint.expiration_time.seconds == expires)
    if services := set(template.network_service_names):
        checks.append(lambda endpoint: services.issubset(endpoint.network_service_names))
    if wanted := {name: dict(item.labels) for name, item in template.network_service_labels.items()}:
        checks.append(lambda endpoint: _has_labels(endpoint, wanted))
    return _all_of(checks)


def _all_of(checks: list[Callable[[E], bool]]) -> Callable[[E], bool]:
    if len(checks) == 1:
        return checks[0]
    return lambda entry: all(check(entry) for check in checks)


def _has_labels(endpoint: NetworkServiceEndpoint, wanted: dict[str, dict[str, str]]) -> bool:
    known = endpoint.network_service_labels
    for service, labels in wanted.items():
        if service not in known:  # asked first: a protobuf map grows when it is indexed
            return False
        has = known[service].labels
        if any(key not in has or has[key] != value for key, value in labels.items()):
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
    matcher: Callable[[E], Callable[[E], bool]]
    """template -> what says of an entry whether it is meant. The template may change afterwards."""
    services: Callable[[E], tuple[str, ...]]
    """Names of services by which an entry is indexed, and a template narrows a search."""
    body: str
    """The field of queries and answers that holds the entry."""
    queries: type[Any]
    answers: type[Any]

    def matches(self, template: E, entry: E) -> bool:
        """Say whether ``template`` means ``entry``; for one question, where ``matcher`` is for many."""
        return self.matcher(template)(entry)

    def query(self, template: E, *, watch: bool = False) -> Query:
        """Return the query for ``template``, of which it holds a copy."""
        query: Query = self.queries(**{self.body: template}, watch=watch)
        return query

    def found(self, entry: E, *, deleted: bool = False) -> Found:
        """Return the answer about ``entry``, of which it holds a copy."""
        found: Found = self.answers(deleted=deleted) if deleted else self.answers()
        getattr(found, self.body).CopyFrom(entry)
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
    matcher=service_matcher,
    services=no_services,
    body="network_service",
    queries=NetworkServiceQuery,
    answers=NetworkServiceResponse,
)

ENDPOINT: Kind[NetworkServiceEndpoint] = Kind(
    word="network service endpoint",
    entry=NetworkServiceEndpoint,
    matcher=endpoint_matcher,
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
