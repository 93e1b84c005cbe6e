"""Elements for tests: inject faults, check what passes, count what passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.model.messages import Connection, Entry, Found, NetworkServiceRequest, Query


class Inject(Element):
    """Raises a given error, in each verb that ``verbs`` names, while ``times`` lasts (None: always)."""

    def __init__(
        self, error: Callable[[], Exception], *verbs: str, times: int | None = None, behind: bool = False
    ) -> None:
        self.error = error
        self.verbs = verbs or ("request",)
        self.times = times
        self.behind = behind

    def _due(self, verb: str) -> bool:
        if verb not in self.verbs or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True

    async def _around(self, verb: str, inner: Callable[[], Awaitable[Any]]) -> Any:
        due = self._due(verb)
        if due and not self.behind:
            raise self.error()
        result = await inner()
        if due:
            raise self.error()
        return result

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Raise in front of (or ``behind``) the rest of the chain."""
        connection: Connection = await self._around("request", lambda: next.request(call, request))
        return connection

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Raise in front of (or ``behind``) the rest of the chain."""
        await self._around("close", lambda: next.close(call, connection))

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Raise in front of (or ``behind``) the rest of the chain."""
        stored: Entry = await self._around("register", lambda: next.register(call, entry))
        return stored

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Raise in front of (or ``behind``) the rest of the chain."""
        await self._around("unregister", lambda: next.unregister(call, entry))


class Check(Element):
    """Hands each message on its way in to a function that asserts what a test expects."""

    def __init__(self, verb: str, check: Callable[[Call, Any], None]) -> None:
        self.verb = verb
        self.check = check

    def _see(self, verb: str, call: Call, message: Any) -> None:
        if verb == self.verb:
            self.check(call, message)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Check, then pass on."""
        self._see("request", call, request)
        return await next.request(call, request)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Check, then pass on."""
        self._see("close", call, connection)
        await next.close(call, connection)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Check, then pass on."""
        self._see("register", call, entry)
        return await next.register(call, entry)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Check, then pass on."""
        self._see("unregister", call, entry)
        await next.unregister(call, entry)


class Count(Element):
    """Counts the verbs that pass, and those that came back without an error (``done``)."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Count, then pass on."""
        self.seen["request"] += 1
        connection = await next.request(call, request)
        self.done["request"] += 1
        return connection

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Count, then pass on."""
        self.seen["close"] += 1
        await next.close(call, connection)
        self.done["close"] += 1

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Count, then pass on."""
        self.seen["register"] += 1
        stored = await next.register(call, entry)
        self.done["register"] += 1
        return stored

    async def _counted(self, found: AsyncIterator[Found]) -> AsyncIterator[Found]:
        async for item in found:
            self.done["find"] += 1
            yield item

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Count the query, and each answer."""
        self.seen["find"] += 1
        return self._counted(next.find(call, query))

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Count, then pass on."""
        self.seen["unregister"] += 1
        await next.unregister(call, entry)
        self.done["unregister"] += 1
