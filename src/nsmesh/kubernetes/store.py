"""A registry's store whose memory is the API server; finding and watching read our view of it alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Conflict, NotFound, Refused
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import Api, Changed, Object, collection
from nsmesh.kubernetes.codec import API_VERSION, Resource
from nsmesh.kubernetes.reflector import Reflector
from nsmesh.kubernetes.view import Held, View
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.catalogue import BACKLOG, Catalogue
from nsmesh.registry.query import E
from nsmesh.registry.viewed import Viewed

TRIES = 20
"""How often a write that somebody else's crossed is tried again."""


class KubernetesStore(Viewed[E]):
    """Entries of one kind as objects. See :class:`nsmesh.registry.store.Store` for its verbs.

    Written are objects of ``namespace``; found are those of all namespaces, so a name may be found twice.
    Two who write one object at once both succeed, one after the other, where they do so for the same owner
    (``path_ids``); else the second is refused, as whose a name is was decided meanwhile. What the first said
    of when an endpoint was first registered stays. So do the matches of a service that is registered without
    any, as endpoints do; of a service that nobody has registered (a user's YAML) all stays.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource[E],
        *,
        namespace: str,
        backlog: int = BACKLOG,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(Catalogue(resource.kind, backlog=backlog))
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._path = collection(API_VERSION, resource.plural, namespace)
        self.view = View(resource, self._catalogue, clock or SystemClock())
        self.reflector = Reflector(api, collection(API_VERSION, resource.plural), self.view)

    @asynccontextmanager
    async def running(self, scope: Scope) -> AsyncIterator[Self]:
        """Keep the view true while the block runs; it begins when everything was listed once."""
        task = scope.spawn(self.reflector.run(), name=f"watch {self._resource.plural}")
        try:
            await self.reflector.synced.wait()
            yield self
        finally:
            task.cancel()

    async def put(self, entry: E) -> E:
        """Write ``entry``, then show it. An entry that is not changed is shown again but not written."""
        own = copy_of(entry)
        held = self.view.held(self._namespace, own.name)
        if (kept := self._kept(own)) is not None:
            return kept
        if held is not None and held.entry == own:
            return self._catalogue.put(own, f"{self._namespace}/{own.name}")
        version = str(held.version) if held else ""
        for _ in range(TRIES):
            try:
                item = await (self._replace(own, version) if version else self._create(own))
            except Changed:
                version = await self._fresh(own)
                if (kept := self._kept(own)) is not None:
                    return kept
            except NotFound:
                if not version:
                    raise
                version = ""
            else:
                self.view.written(item)
                return own
        raise Refused(
            f"the {self.kind.word} {own.name} was changed by others at each of {TRIES} tries to write it",
            remedy="give each that registers a name of its own (NSM_NAME)",
        )

    def _kept(self, own: E) -> E | None:
        """Give a service without matches those that it has; return it where it stays as it is."""
        held = self.view.held(self._namespace, own.name)
        known = held.entry if held else None
        if not isinstance(own, NetworkService) or own.matches:
            return None
        if not isinstance(known, NetworkService) or not known.matches:
            return None
        if any(known.path_ids[:1]):
            own.matches.extend(known.matches)
            return None
        answer = copy_of(known)
        answer.path_ids[:] = own.path_ids
        return answer

    async def _create(self, own: E) -> Object:
        body = {
            "apiVersion": API_VERSION,
            "kind": self._resource.name,
            "metadata": {"name": own.name},
            "spec": self._resource.spec(own),
        }
        return await self._api.call("POST", self._path, body=body)

    async def _replace(self, own: E, version: str) -> Object:
        """Replace the spec alone, so that labels, annotations and owners stay; only of that version."""
        changes: list[Object] = [
            {"op": "add", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/spec", "value": self._resource.spec(own)},
        ]
        return await self._api.call(
            "PATCH", f"{self._path}/{own.name}", body=changes, content_type="application/json-patch+json"
        )

    async def _fresh(self, own: E) -> str:
        """Return the version that the server has now, or "", and take over what must not be lost of it."""
        try:
            item = await self._api.call("GET", f"{self._path}/{own.name}")
        except NotFound:
            return ""
        self.view.changed(item)
        held = self.view.held(self._namespace, own.name)
        known = held.entry if held else None
        owners = [list(one.path_ids[:1]) for one in (known, own) if one is not None]
        if all(map(any, owners)) and owners[0] != owners[-1]:
            raise Conflict(
                f"the {self.kind.word} {own.name} was registered by {owners[0][0]} a moment ago",
                remedy="give each that registers a name of its own (NSM_NAME)",
            )
        if (
            isinstance(own, NetworkServiceEndpoint)
            and isinstance(known, NetworkServiceEndpoint)
            and known.HasField("initial_registration_time")
        ):
            own.initial_registration_time.CopyFrom(known.initial_registration_time)
        version: str = item["metadata"]["resourceVersion"]
        return version

    async def get(self, name: str) -> E | None:
        """Return the entry of that name: our namespace's, or else another's, or None."""
        held = self.view.held(self._namespace, name)
        if held is not None and held.entry is not None:
            return held.entry
        found = self._catalogue.list(self.kind.entry(name=name))
        return found[0] if found else None

    async def remove(self, name: str) -> bool:
        """Delete our namespace's object of that name."""
        held = self.view.held(self._namespace, name)
        try:
            item = await self._api.call("DELETE", f"{self._path}/{name}")
        except NotFound:
            if held is not None:
                self.view.removed(held)
            return False
        uid = item.get("details", {}).get("uid")
        if held is not None and held.uid == uid:
            self.view.removed(held)
        return True

    async def remove_unchanged(self, held: Held[E]) -> bool:
        """Delete an object of any namespace, unless it is no longer as we know it; False where it is not."""
        path = f"{collection(API_VERSION, self._resource.plural, held.namespace)}/{held.name}"
        precondition = {"uid": held.uid, "resourceVersion": str(held.version)}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": precondition}
        try:
            await self._api.call("DELETE", path, body=body)
        except (NotFound, Changed):
            return False
        self.view.removed(held)
        return True
