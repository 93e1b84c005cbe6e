"""From applied documents to a running mesh: what is new is made, what changed is made again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from nsmesh.core.errors import Invalid, MeshError, NotFound, Refused
from nsmesh.model.manifest import Document, Link
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.standalone.check import Surroundings, check
from nsmesh.standalone.documents import Local, key
from nsmesh.standalone.entries import Entries, rules
from nsmesh.standalone.events import Event
from nsmesh.standalone.making import Maker
from nsmesh.standalone.making_run import Failure, Tell
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.roles import search_path

log = structlog.get_logger()


class Reconciler:
    """Applies and deletes documents, one call at a time."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.entries = Entries(mesh)
        self.maker = Maker(mesh, self.entries)
        self._turn = asyncio.Lock()

    async def apply(self, documents: list[Document], tell: Tell, *, wait: bool) -> None:
        """Make the mesh as ``documents`` say; ``tell`` hears each step. Raises what failed, as one error.

        What can be checked is checked before anything changes. A document that fails later is taken back
        whole, and what it was to replace is put up again.
        """
        async with self._turn:
            check(documents, self._surroundings())
            self._check_services(documents)
            await self._apply_entries(documents, tell)
            await self._apply_local([item for item in documents if isinstance(item, Local)], tell, wait=wait)

    def _surroundings(self) -> Surroundings:
        known = self.mesh.documents.known
        return Surroundings(
            known=known,
            clients=[name for name in self.mesh.clients.known if ("workload", name) not in known],
            taken=self.mesh.taken,
            nodes=self.mesh.nodes,
            hosts=self.mesh.elsewhere,
            path=search_path(),
            directory=str(self.mesh.paths.files),
        )

    def _check_services(self, documents: Iterable[Document]) -> None:
        """Raise Refused for a network service that is another host's to change."""
        for document in documents:
            if isinstance(document, NetworkService) and not self.entries.has_service(document):
                self._here(document.name)

    def _here(self, service: str) -> None:
        first = self.mesh.first
        if first:
            raise Refused(
                f"service {service}: network services are the first host's, {first}, and this host joined",
                remedy=f"apply or delete it on {first}",
            )

    async def restore(self, tell: Tell) -> None:
        """Make what an earlier run of this mesh had; ``tell`` hears each step, a failed one too."""
        async with self._turn:
            items = list(self.mesh.documents.known.values())
            for failure in await self.maker.make(items, tell, wait=True):
                text = f"{key(failure.item)[0]} {failure.item.name} is not as it was: {failure.error.what}"
                event = self.mesh.events.add("mesh", text, failed=True, remedy=failure.error.remedy)
                tell(event)

    async def _apply_entries(self, documents: list[Document], tell: Tell) -> None:
        for document in documents:
            if isinstance(document, NetworkService):
                await self._apply_service(document, tell)
            elif isinstance(document, NetworkServiceEndpoint):
                if self.entries.has_endpoint(document):
                    tell(self._event("endpoint", f"endpoint {document.name} unchanged"))
                    continue
                await self.entries.register(document)
                tell(self._event("endpoint", f"endpoint {document.name} registered at {document.url}"))

    async def _apply_service(self, service: NetworkService, tell: Tell) -> None:
        if self.entries.has_service(service):
            tell(self._event("service", f"service {service.name} unchanged"))
            return
        verb = "updated" if service.name in self.mesh.model.services else "registered"
        await self.entries.register(service)
        tell(self._event("service", f"service {service.name} {verb}: {rules(service)}"))

    async def _apply_local(self, items: list[Local], tell: Tell, *, wait: bool) -> None:
        documents = self.mesh.documents
        before = dict(documents.known)
        fresh = [item for item in items if before.get(key(item)) != item or not self.maker.lives(item)]
        for item in items:
            if item not in fresh:
                tell(self._event(key(item)[0], f"{key(item)[0]} {item.name} unchanged"))
        documents.put(fresh)
        replaced = [before[key(item)] for item in fresh if key(item) in before]
        for item in replaced:
            await self.maker.unmake(*key(item))
            verb = "is replaced" if documents.known[key(item)] != item else "is made again"
            tell(self._event(key(item)[0], f"{key(item)[0]} {item.name} {verb}"))
        failures = await self.maker.make([*fresh, *self._loose_links(fresh)], tell, wait=wait)
        await self._take_back([failure.item for failure in failures if not failure.stays], replaced)
        if failures:
            raise _combined(failures)

    def _loose_links(self, fresh: Iterable[Local]) -> list[Link]:
        """Return the links that stand in documents, are not there, and find both their ends now."""
        names = {item.name for item in fresh if not isinstance(item, Link)}
        there = names | set(self.mesh.spaces.known)
        links = [link for link in self.mesh.documents.of(Link) if link not in fresh]
        return [
            link
            for link in links
            if not self.maker.lives(link)
            and all(end.of in there for end in link.ends)
            and any(end.of in names for end in link.ends)
        ]

    async def _take_back(self, failed: list[Local], replaced: list[Local]) -> None:
        """Forget documents that failed; put up again what they were to replace."""
        if not failed:
            return
        documents = self.mesh.documents
        keys = {key(item) for item in failed}
        again = [item for item in replaced if key(item) in keys and documents.known[key(item)] != item]
        try:
            documents.drop(*(keys - {key(item) for item in replaced}))
            documents.put(again)
        except MeshError as error:  # the disk is full: it has the failed ones still, and a restart tries them
            log.warning("documents that failed are still on disk", error=str(error))
        again += self._loose_links(again)
        for failure in await self.maker.make(again, lambda _event: None, wait=False):
            log.warning("cannot go back to what was before", name=failure.item.name, error=str(failure.error))

    async def delete(self, kind: str, name: str, tell: Tell) -> None:
        """Delete one object by kind and name; raises NotFound."""
        async with self._turn:
            mesh = self.mesh
            if kind == "service" and name in mesh.model.services:
                self._here(name)
                await self.entries.drop_service(name)
            elif (kind, name) in mesh.documents.known:
                mesh.documents.drop((kind, name))
                await self.maker.unmake(kind, name)
            elif kind == "endpoint" and name in mesh.model.endpoints:
                await self.entries.drop_endpoint(name)
            else:
                raise NotFound(f"there is no {kind} {name}", remedy=f"list them with: nsm get {kind}s")
            tell(self._event(kind, f"{kind} {name} deleted"))

    def _event(self, kind: str, text: str) -> Event:
        return self.mesh.events.add(kind, text)


def _combined(failures: list[Failure]) -> MeshError:
    """Return what failed as one error."""
    if len(failures) == 1:
        return failures[0].error
    lines = "\n".join(f"  {failure.error}" for failure in failures)
    return Invalid(f"{len(failures)} objects failed\n{lines}")
