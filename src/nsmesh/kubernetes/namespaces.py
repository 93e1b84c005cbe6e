"""Namespaces as an admission webhook needs them: read anew, and which of them carry the annotation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nsmesh.core.errors import MeshError, NotFound, TimedOut
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import Api, Object, collection

PATH = collection("v1", "namespaces")
PATIENCE = 1.0
"""Seconds after which the last known form of a namespace is taken."""


class Namespaces:
    """Takes what a :class:`Reflector` tells, and reads one namespace anew when it matters.

    ``tell`` is called when another set of namespaces carries ``annotation``.
    """

    def __init__(self, api: Api, annotation: str, scope: Scope) -> None:
        self._api = api
        self._annotation = annotation
        self._scope = scope
        self.tell: Callable[[], None] = lambda: None
        self._held: dict[str, Object] = {}
        self._next: dict[str, asyncio.Future[Object]] = {}
        self._busy: set[str] = set()
        self._listed = False
        self.annotated: frozenset[str] | None = None
        """Those that carry the annotation; None until all have been listed."""

    async def read(self, name: str) -> Object:
        """Return a namespace as it was not earlier than now; of one that is gone an empty object.

        Who asks while it is read shares the next reading: many pods at once cost a few calls. Where the rate
        of calls allows none, or the server does not answer, what the watch told last has to do; raises
        MeshError where it told nothing.
        """
        if name not in self._next:
            self._next[name] = asyncio.get_running_loop().create_future()
            if name not in self._busy:
                self._busy.add(name)
                self._scope.spawn(self._reading(name), name=f"namespace {name}")
        return await asyncio.shield(self._next[name])

    async def _reading(self, name: str) -> None:
        """Read a namespace for as long as somebody asks for it."""
        try:
            while waiting := self._next.pop(name, None):
                try:
                    waiting.set_result(await self._fresh(name))
                except MeshError as error:
                    waiting.set_exception(error)
                    waiting.exception()  # whoever asked may have gone
                finally:
                    waiting.cancel()  # where neither came of it
        finally:
            self._busy.discard(name)

    async def _fresh(self, name: str) -> Object:
        if name in self._held and not self._api.free():
            return self._held[name]
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._api.call("GET", f"{PATH}/{name}")
        except NotFound:
            return {}
        except (TimeoutError, MeshError) as error:
            if name in self._held:
                return self._held[name]
            if isinstance(error, MeshError):
                raise
            raise TimedOut(f"the API server did not tell of namespace {name} in time") from error
        self.changed(found)
        return found

    def changed(self, item: Object) -> None:
        """See :class:`Sink`."""
        self._held[item["metadata"]["name"]] = _bare(item)
        self._look()

    def deleted(self, item: Object) -> None:
        """See :class:`Sink`."""
        self._held.pop(item["metadata"]["name"], None)
        self._look()

    def replace(self, items: list[Object], version: str) -> None:  # noqa: ARG002 - the face
        """See :class:`Sink`."""
        self._held = {item["metadata"]["name"]: _bare(item) for item in items}
        self._listed = True
        self._look()

    def _look(self) -> None:
        if not self._listed:
            return
        found = frozenset(
            name
            for name, item in self._held.items()
            if (item["metadata"].get("annotations") or {}).get(self._annotation)
        )
        if found != self.annotated:
            self.annotated = found
            self.tell()


def _bare(item: Object) -> Object:
    """Keep what is asked for."""
    meta = item["metadata"]
    kept = {key: meta[key] for key in ("name", "annotations", "labels") if meta.get(key)}
    return {"metadata": kept}
