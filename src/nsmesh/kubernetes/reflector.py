"""List and watch: keeps a view of one collection true, whatever happens to the server.

One list, then one watch from the list's version, opened again where it ended. The view is kept while the
server is away. When the server no longer has the history (410 Gone), the collection is listed again and the
view told what the list holds: the view finds out what vanished meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from typing import Protocol

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.core.pauses import pauses
from nsmesh.kubernetes.client import Api, Gone, Object

log = structlog.get_logger()

PAGE = "500"
SHORTEST, LONGEST = 240, 300
"""Seconds after which the server is asked to end a watch, so that replicas spread over the servers."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Sink(Protocol):
    """What is kept true."""

    def changed(self, item: Object) -> None:
        """Take an object that was made or changed."""
        ...

    def deleted(self, item: Object) -> None:
        """Take an object's last form; it is gone."""
        ...

    def replace(self, items: list[Object], version: str) -> None:
        """Take all objects as they were at ``version``."""
        ...


class Reflector:
    """Feeds ``sink`` with the collection at ``path``. ``run`` goes on until it is cancelled.

    ``chosen`` are a ``labelSelector``, a ``fieldSelector`` or both: the only objects to follow.
    """

    def __init__(self, api: Api, path: str, sink: Sink, chosen: Mapping[str, str] | None = None) -> None:
        self._api = api
        self._path = path
        self._sink = sink
        self._chosen = dict(chosen or {})
        self._version = ""
        self.synced = asyncio.Event()
        """Set when the collection has been listed once."""
        self.lists = 0
        """How often it was listed."""
        self.trouble: MeshError | None = None
        """Why the view may be old; None while it is true."""

    async def run(self) -> None:
        """Keep the view true."""
        clock = asyncio.get_running_loop()
        delays: Iterator[float] = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            began = clock.time()
            try:
                if not self._version:
                    await self._list()
                    self._well()
                await self._watch()
            except Gone:
                log.info("the API server's history is gone: listing again", path=self._path)
                self._version = ""
            except MeshError as error:
                self._ill(error)
            if clock.time() - began > LONGEST_PAUSE:  # what ends at once is asked for less and less
                delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
            await asyncio.sleep(next(delays))

    async def _list(self) -> None:
        items: list[Object] = []
        params = {**self._chosen, "limit": PAGE}
        while True:
            page = await self._api.call("GET", self._path, params=params)
            items += page.get("items", ())
            following = page["metadata"].get("continue")
            if not following:
                break
            params["continue"] = following
        self.lists += 1
        self._version = page["metadata"]["resourceVersion"]
        self._sink.replace(items, self._version)
        self.synced.set()

    async def _watch(self) -> None:
        seconds = random.randint(SHORTEST, LONGEST)  # noqa: S311 - no secret
        params = {**self._chosen, "resourceVersion": self._version, "timeoutSeconds": str(seconds)}
        async for kind, item in self._api.watch(self._path, params, self._well):
            if kind == "DELETED":
                self._sink.deleted(item)
            elif kind != "BOOKMARK":
                self._sink.changed(item)
            self._version = item["metadata"]["resourceVersion"]

    def _well(self) -> None:
        if self.trouble is not None:
            log.info("the API server is back", path=self._path)
        self.trouble = None

    def _ill(self, error: MeshError) -> None:
        if self.trouble is None:
            log.warning("the view of the API server may be old", path=self._path, error=str(error))
        self.trouble = error
