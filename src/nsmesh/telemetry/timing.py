"""Counts and times what passes: at the front of each role, and in each element. Only where metrics are on."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError, Status
from nsmesh.core.metrics import Counter, Histogram
from nsmesh.core.observing import Headers
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    Found,
    MonitorScopeSelector,
    NetworkServiceRequest,
    Query,
)

T = TypeVar("T")

REQUESTS = Counter(
    "nsm_role_requests",
    "Calls that a role has answered, by verb and gRPC status.",
    ("role", "verb", "status"),
)
SECONDS = Histogram(
    "nsm_role_seconds", "How long a role took to answer, next hops included.", ("role", "verb")
)
ELEMENT = Histogram(
    "nsm_element_seconds",
    "How long an element took by itself, without what stands behind it in its chain.",
    ("chain", "element", "verb"),
)

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def word_of(element: Element) -> str:
    """Return the one word of an element: that of its file, ``update_path`` for UpdatePath."""
    return _WORD.sub("_", type(element).__name__).lower()


class _Unary:
    """Passes all verbs on; a subclass surrounds those that have one answer."""

    def __init__(self, inner: Handler) -> None:
        self.inner = inner

    async def around(self, verb: str, call: Call, work: Awaitable[T]) -> T:  # noqa: ARG002 - the face
        return await work

    async def request(self, call: Call, request: NetworkServiceRequest) -> Connection:
        """See :class:`nsmesh.core.element.Handler`."""
        return await self.around("request", call, self.inner.request(call, request))

    async def close(self, call: Call, connection: Connection) -> None:
        """See :class:`nsmesh.core.element.Handler`."""
        await self.around("close", call, self.inner.close(call, connection))

    def monitor(self, call: Call, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """See :class:`nsmesh.core.element.Handler`."""
        return self.inner.monitor(call, selector)

    async def register(self, call: Call, entry: Entry) -> Entry:
        """See :class:`nsmesh.core.element.Handler`."""
        return await self.around("register", call, self.inner.register(call, entry))

    def find(self, call: Call, query: Query) -> AsyncIterator[Found]:
        """See :class:`nsmesh.core.element.Handler`."""
        return self.inner.find(call, query)

    async def unregister(self, call: Call, entry: Entry) -> None:
        """See :class:`nsmesh.core.element.Handler`."""
        await self.around("unregister", call, self.inner.unregister(call, entry))


Surrounding = _Unary


class _Role(_Unary):
    def __init__(self, name: str, inner: Handler) -> None:
        super().__init__(inner)
        self.name = name

    async def around(self, verb: str, call: Call, work: Awaitable[T]) -> T:  # noqa: ARG002 - the face
        begun = time.perf_counter()
        status = Status.CANCELLED
        try:
            answer = await work
            status = Status.OK
        except MeshError as error:
            status = error.status
            raise
        finally:
            SECONDS.observe(time.perf_counter() - begun, self.name, verb)
            REQUESTS.add(self.name, verb, status.name)
        return answer


_INNER: ContextVar[list[float] | None] = ContextVar("inner", default=None)
"""Where what stands behind the running element adds its time."""


class _Timed(_Unary):
    def __init__(self, chain: str, element: str, inner: Handler) -> None:
        super().__init__(inner)
        self.chain = chain
        self.element = element

    async def around(self, verb: str, call: Call, work: Awaitable[T]) -> T:  # noqa: ARG002 - the face
        outer, behind = _INNER.get(), [0.0]
        token = _INNER.set(behind)
        begun = time.perf_counter()
        try:
            return await work
        finally:
            took = time.perf_counter() - begun
            _INNER.reset(token)
            if outer is not None:
                outer[0] += took
            ELEMENT.observe(max(took - behind[0], 0.0), self.chain, self.element, verb)


class Timing:
    """The observer that counts and times."""

    def role(self, name: str, handler: Handler) -> Handler:
        """See :class:`nsmesh.core.observing.Observer`."""
        return _Role(name, handler)

    def link(self, chain: str, element: Element, handler: Handler) -> Handler:
        """See :class:`nsmesh.core.observing.Observer`."""
        return _Timed(chain, word_of(element), handler)

    def outgoing(
        self,
        method: str,  # noqa: ARG002 - the face
        url: str,  # noqa: ARG002 - likewise
        call: Call,  # noqa: ARG002 - likewise
        headers: Headers,
    ) -> AbstractContextManager[Headers]:
        """See :class:`nsmesh.core.observing.Observer`."""
        return nullcontext(headers)
