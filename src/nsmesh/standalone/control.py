"""The control interface of a mesh: what commands, the web page and tests call."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import DecodeError

from nsmesh import rpc
from nsmesh.api import control_pb2
from nsmesh.core.errors import Invalid, MeshError, NotFound
from nsmesh.datapath import netns
from nsmesh.model import control, manifest, nsurl
from nsmesh.model.manifest import ManifestErrors
from nsmesh.standalone.events import Event
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.processes import Started, Watch, start_ticks
from nsmesh.standalone.reconcile import Reconciler, Tell
from nsmesh.standalone.rows import Rows
from nsmesh.standalone.spaces import existing

_SINGULAR = {
    "services": "service",
    "endpoints": "endpoint",
    "clients": "workload",
    "links": "link",
}


def _parse(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Invalid(f"the message is no {kind.DESCRIPTOR.full_name}: {error}") from error


class Control:
    """Serves one mesh. ``down`` is set when somebody asks for its end."""

    def __init__(self, mesh: Mesh, reconciler: Reconciler) -> None:
        self.mesh = mesh
        self.reconciler = reconciler
        self.rows = Rows(mesh)
        self.down = asyncio.Event()
        self._watches: dict[str, Watch] = {}

    def methods(self) -> dict[str, rpc.Method]:
        """Return what to serve."""
        return {
            control.APPLY: rpc.ServerStream(self._steps(control_pb2.ApplyRequest, self._apply)),
            control.DELETE: rpc.ServerStream(self._steps(control_pb2.DeleteRequest, self._delete)),
            control.CONNECT: rpc.ServerStream(self._steps(control_pb2.ConnectRequest, self._connect)),
            control.DISCONNECT: rpc.ServerStream(
                self._steps(control_pb2.DisconnectRequest, self._disconnect)
            ),
            control.GET: rpc.ServerStream(self._get),
            control.STATUS: rpc.Unary(self._status),
            control.DOWN: rpc.ServerStream(self._steps(control_pb2.Empty, self._down)),
        }

    def _steps(
        self, kind: Any, work: Callable[[Any, Tell], Awaitable[None]]
    ) -> Callable[[rpc.ServerCall, bytes], AsyncIterator[bytes]]:
        """Run long work; stream each step as it happens, an error as the last one."""

        async def serve(call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:  # noqa: ARG001
            request = _parse(kind, body)
            queue: asyncio.Queue[Event | None] = asyncio.Queue()

            async def run() -> None:
                try:
                    await work(request, queue.put_nowait)
                except MeshError as error:
                    queue.put_nowait(
                        self.mesh.events.add("error", error.what, failed=True, remedy=error.remedy)
                    )
                finally:
                    queue.put_nowait(None)

            task = self.mesh.scope.spawn(run(), name="control")
            try:
                while (event := await queue.get()) is not None:
                    yield _step(event)
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.wait([task])

        return serve

    async def _apply(self, request: control_pb2.ApplyRequest, tell: Tell) -> None:
        try:
            documents = manifest.load(request.text, request.source or "input")
        except ManifestErrors as error:
            raise Invalid(str(error)) from error
        if not documents:
            raise Invalid(f"{request.source or 'the input'} has no document", remedy="write at least one")
        await self.reconciler.apply(documents, tell, wait=request.wait)

    async def _delete(self, request: control_pb2.DeleteRequest, tell: Tell) -> None:
        if request.text:
            try:
                documents = manifest.load(request.text, "input")
            except ManifestErrors as error:
                raise Invalid(str(error)) from error
            for document in reversed(documents):
                await self.reconciler.delete(_kind(document), document.name, tell)
            return
        if request.kind == "connections":
            await self._disconnect(control_pb2.DisconnectRequest(connection=request.name), tell)
            return
        kind = _SINGULAR.get(request.kind)
        if kind is None:
            raise Invalid(
                f"{request.kind} cannot be deleted", remedy=f"what can: {', '.join(_SINGULAR)}, connections"
            )
        if kind == "workload" and (kind, request.name) not in self.mesh.documents.known:
            await self._disconnect(control_pb2.DisconnectRequest(client=request.name), tell)
            return
        await self.reconciler.delete(kind, request.name, tell)

    async def _connect(self, request: control_pb2.ConnectRequest, tell: Tell) -> None:
        mesh = self.mesh
        try:
            url = nsurl.parse(request.url)
        except nsurl.NsUrlError as error:
            raise Invalid(f"{request.url!r}, {error}") from error
        path = existing(request.netns, request.pid)
        name = request.client or _client_name(request)
        known = name in mesh.clients.known
        client = await mesh.clients.add(name, path)
        try:
            wire = await mesh.clients.connect(client, url)
        except MeshError:
            if not known and not client.wires:
                await mesh.clients.remove(name)
            raise
        if request.pid and name not in self._watches:
            self._follow(name, request.pid)
        for event in self.reconciler.told(client, wire):
            tell(event)

    def _follow(self, name: str, pid: int) -> None:
        """Take the wires of a process away when it ends."""
        ticks = start_ticks(pid)
        if ticks is None:
            return

        async def gone() -> None:
            self.mesh.events.add("workload", f"process {pid} ended: its wires are taken away")
            await self.mesh.clients.remove(name)

        def ended() -> None:
            self._watches.pop(name, None)
            self.mesh.scope.spawn(gone(), name=f"process {pid} ended")

        try:
            self._watches[name] = Watch(Started(pid, ticks), ended)
        except ProcessLookupError:
            ended()

    async def _disconnect(self, request: control_pb2.DisconnectRequest, tell: Tell) -> None:
        clients = self.mesh.clients
        if request.connection:
            client, wire = clients.find(request.connection)
            await clients.disconnect(client, wire)
            tell(self.mesh.events.add("wire", f"connection {wire.id} closed", connection=wire.id))
            if not client.wires and ("workload", client.name) not in self.mesh.documents.known:
                await self._forget(client.name)
            return
        names = [request.client] if request.client else self._in_place(request)
        for name in names:
            if name not in clients.known:
                raise NotFound(f"there is no client {name}", remedy="list them with: nsm get clients")
            await self._forget(name)
            tell(self.mesh.events.add("wire", f"client {name} disconnected"))

    async def _forget(self, name: str) -> None:
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.close()
        await self.mesh.clients.remove(name)

    def _in_place(self, request: control_pb2.DisconnectRequest) -> list[str]:
        path = existing(request.netns, request.pid)
        wanted = netns.identity(path)
        names = []
        for client in self.mesh.clients.known.values():
            try:
                if netns.identity(client.netns) == wanted:
                    names.append(client.name)
            except OSError:
                continue  # that namespace is gone; it is not the one that was named
        if not names:
            raise NotFound(f"no client has a wire into {path}", remedy="list them with: nsm get clients")
        return names

    async def _get(self, call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:  # noqa: ARG002
        request = _parse(control_pb2.GetRequest, body)
        if request.what not in control.KINDS:
            raise Invalid(f"unknown kind {request.what!r}", remedy=f"known: {', '.join(control.KINDS)}")
        changes = self._changes(request.what) if request.watch else None
        for row in self.rows.of(request.what, request.name):
            yield _item(row)
        if changes is None:
            return
        yield control_pb2.Item(synced=True).SerializeToString()
        shown = {_name(row): row for row in self.rows.of(request.what, request.name)}
        async for _ in changes:
            now = {_name(row): row for row in self.rows.of(request.what, request.name)}
            for name, row in now.items():
                if shown.get(name) != row:
                    yield _item(row)
            for name, row in shown.items():
                if name not in now:
                    yield _item(row, deleted=True)
            shown = now

    def _changes(self, kind: str) -> AsyncIterator[Any]:
        return self.mesh.events.listen() if kind in {"events", "clients"} else self.mesh.model.changes()

    async def _status(self, call: rpc.ServerCall, body: bytes) -> bytes:  # noqa: ARG002
        return _item(self.rows.status())

    async def _down(self, request: control_pb2.Empty, tell: Tell) -> None:  # noqa: ARG002
        tell(self.mesh.events.add("mesh", f"mesh {self.mesh.paths.mesh} goes down"))
        self.down.set()


def _kind(document: manifest.Document) -> str:
    name = type(document).__name__.lower()
    return {"networkservice": "service", "networkserviceendpoint": "endpoint"}.get(name, name)


def _client_name(request: control_pb2.ConnectRequest) -> str:
    if request.pid:
        return f"pid-{request.pid}"
    return os.path.basename(request.netns)  # noqa: PTH119 - a name, not a path


def _name(row: dict[str, Any]) -> str:
    return str(row.get("id") or row.get("name") or (row.get("time"), row.get("text")))


def _item(row: dict[str, Any], *, deleted: bool = False) -> bytes:
    return control_pb2.Item(json=json.dumps(row), deleted=deleted).SerializeToString()


def _step(event: Event) -> bytes:
    step = control_pb2.Step(
        text=event.text, json=json.dumps(event.row()), failed=event.failed, remedy=event.remedy
    )
    return step.SerializeToString()
