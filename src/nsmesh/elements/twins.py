"""Twins: two endpoints that share a name do not take it from each other for ever."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Conflict
from nsmesh.model.messages import Entry, NetworkServiceEndpoint
from nsmesh.model.times import seconds

log = structlog.get_logger()


@dataclass(slots=True)
class _Name:
    """Who has a name: where, and until when. ``former`` had it before; ``twin`` is refused."""

    url: str
    until: float
    former: str = ""
    former_until: float = 0.0
    twin: str = ""


class Twins(Element):
    """Refuses the second of two endpoints that register one name by turns.

    An endpoint may move: a Register from another URL takes its name along. But when the one that had it
    before takes it back while its old registration still lasted, both are alive; the name stays with that
    one, and the other is told so at each Register, until the name is free.

    After:  Begin, Expire
    Leaves: two URLs per endpoint, until Unregister
    """

    after = ("Begin", "Expire", "RegistryReceiveFd")

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}

    def __len__(self) -> int:
        """Return how many names are known."""
        return len(self._names)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Look whose turn it is, pass on, remember."""
        if not isinstance(entry, NetworkServiceEndpoint):
            return await next.register(call, entry)
        name, url = entry.name, entry.url
        known = self._names.get(name)
        now = self.scope.clock.now()
        if known is not None and known.url != url and known.twin == url and now < known.until:
            raise Conflict(
                f"the endpoint name {name} is taken: it is registered at {known.url}, and {url} is another",
                remedy="give each its own name (NSM_NAME)",
            )
        answer = await next.register(call, entry)
        until = now
        if isinstance(answer, NetworkServiceEndpoint) and answer.HasField("expiration_time"):
            until = seconds(answer.expiration_time)
        self._names[name] = _after(known, url, until, now)
        return answer

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Pass on; then the name is free."""
        await next.unregister(call, entry)
        if isinstance(entry, NetworkServiceEndpoint):
            self._names.pop(entry.name, None)


def _after(known: _Name | None, url: str, until: float, now: float) -> _Name:
    if known is None:
        return _Name(url, until)
    if known.url == url:
        return _Name(url, until, known.former, known.former_until, known.twin)
    if known.former == url and now < known.former_until:
        log.warning("two endpoints share a name", first=url, second=known.url)
        return _Name(url, until, twin=known.url)
    return _Name(url, until, known.url, known.until)
