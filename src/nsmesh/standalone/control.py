"""The control interface of a mesh: what commands, the web page and tests call."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any

import structlog

from nsmesh import rpc
from nsmesh.api import control_pb2
from nsmesh.core.ending import hand_over
from nsmesh.core.errors import Conflict, Internal, Invalid, MeshError, NotFound
from nsmesh.datapath import netns
from nsmesh.model import control, manifest, nsurl
from nsmesh.model.manifest import Endpoint
from nsmesh.model.names import name_problem, name_suggestion
from nsmesh.standalone import succession, upgrading
from nsmesh.standalone.control_messages import documents_of, kind_of, parsed, step_of
from nsmesh.standalone.events import Event
from nsmesh.standalone.hosting import first_host
from nsmesh.standalone.leaks import leaked
from nsmesh.standalone.making_run import Tell
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.nodes import wanted_node
from nsmesh.standalone.reconcile import Reconciler
from nsmesh.standalone.restarting import restart
from nsmesh.standalone.rows import Rows
from nsmesh.standalone.spaces import existing
from nsmesh.standalone.telling import told
from nsmesh.standalone.watching import item, listing

log = structlog.get_logger()

SEEN = 1.0
"""Seconds that the read model may take to hear of a wire that was just made."""
_SINGULAR = {
    "services": "service",
    "endpoints": "endpoint",
    "clients": "workload",
    "links": "link",
}


class Control:
    """Serves one mesh. ``stop`` is set when somebody asks for its end."""

    def __init__(self, mesh: Mesh, reconciler: Reconciler, stop: asyncio.Event) -> None:
        self.mesh = mesh
        self.reconciler = reconciler
        self.rows = Rows(mesh)
        self._stop = stop

    def methods(self) -> dict[str, rpc.Method]:
        """Return what to serve."""
        return {
            control.APPLY: self._steps(control_pb2.ApplyRequest, self._apply),
            control.DELETE: self._steps(control_pb2.DeleteRequest, self._delete),
            control.CONNECT: self._steps(control_pb2.ConnectRequest, self._connect, cancels=True),
            control.DISCONNECT: self._steps(control_pb2.DisconnectRequest, self._disconnect),
            control.GET: rpc.ServerStream(self._get),
            control.STATUS: rpc.Unary(self._status),
            control.DOWN: self._steps(control_pb2.Empty, self._down),
            control.RESTART: self._steps(control_pb2.UnitRequest, self._restart),
            control.UPGRADE: self._steps(control_pb2.UpgradeRequest, self._upgrade),
            control.HAND_OVER: self._steps(control_pb2.HandOverRequest, self._hand_over),
            control.CREATE_TOKEN: rpc.Unary(self._create_token),
            control.REMOVE_NODE: self._steps(control_pb2.NodeRequest, self._remove_node),
        }

    def _steps(
        self, kind: Any, work: Callable[[Any, Tell], Awaitable[None]], *, cancels: bool = False
    ) -> rpc.ServerStream:
        """Run long work; stream each step as it happens, an error as the last one.

        Work goes on when its caller goes away, so that nothing is left half done; with ``cancels`` it is
        taken back instead.
        """

        async def serve(call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:  # noqa: ARG001 - the face asks for it
            request = parsed(kind, body)
            queue: asyncio.Queue[Event | None] = asyncio.Queue()
            task = self.mesh.scope.spawn(self._run(work, request, queue), name="control")
            try:
                while (event := await queue.get()) is not None:
                    yield step_of(event)
            finally:
                if cancels and not task.done():
                    task.cancel()
                    await asyncio.wait([task])

        return rpc.ServerStream(serve)

    async def _run(
        self, work: Callable[[Any, Tell], Awaitable[None]], request: Any, queue: asyncio.Queue[Event | None]
    ) -> None:
        error: MeshError | None = None
        try:
            await work(request, queue.put_nowait)
        except MeshError as failure:
            error = failure
        except Exception:
            log.exception("a command failed by a fault of our own")
            error = Internal("the mesh has a fault", remedy="see its traceback: nsm logs daemon")
        finally:
            if error is not None:
                failed = self.mesh.events.add("error", error.what, failed=True, remedy=error.remedy)
                queue.put_nowait(failed)
            queue.put_nowait(None)

    async def _apply(self, request: control_pb2.ApplyRequest, tell: Tell) -> None:
        await self.reconciler.apply(documents_of(request.manifests), tell, wait=request.wait)

    async def _delete(self, request: control_pb2.DeleteRequest, tell: Tell) -> None:
        if request.manifests:
            await self._delete_all(documents_of(request.manifests), tell)
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

    async def _delete_all(self, documents: list[manifest.Document], tell: Tell) -> None:
        """Delete all documents, last first; those that are not there are told at the end."""
        missing: list[str] = []
        for document in reversed(documents):
            kind = kind_of(document)
            try:
                await self.reconciler.delete(kind, document.name, tell)
            except NotFound:
                missing.append(f"{kind} {document.name}")
        if missing:
            raise NotFound(f"there is no {', no '.join(missing)}", remedy="the others were deleted")

    async def _connect(self, request: control_pb2.ConnectRequest, tell: Tell) -> None:
        mesh = self.mesh
        try:
            url = nsurl.parse(request.url)
        except nsurl.NsUrlError as error:
            what = f"{request.url!r}, character {error.position}: {error.what}"
            raise Invalid(what, remedy=error.remedy) from error
        path = existing(request.netns, request.pid)
        name = self._client_name(request)
        wanted_node(mesh.nodes, request.node, f"client {name}", mesh.elsewhere)
        ours = name not in mesh.clients.known
        if ours:
            mesh.placement.put("client", name, request.node)
        client = await mesh.clients.add(name, path)
        try:
            if ours:
                mesh.followers.follow(name, path, request.pid)
                mesh.children.add_place(path)
            wire = await mesh.clients.connect(client, url)
        except BaseException:
            if ours and not client.wires:
                # in the background: whoever asked may be gone, and this must be done all the same
                await asyncio.wait([mesh.scope.spawn(self._forget(name), name=f"forget {name}")])
            raise
        mesh.connects.put(name, path, request.pid, request.node, str(url))
        # who asks next shall see it: the read model knows it by the id that the manager gave it
        agreed = client.connection(wire)
        seen = agreed.path.path_segments[1].id if agreed and len(agreed.path.path_segments) > 1 else ""
        await mesh.news.until(lambda: seen in mesh.model.connections, SEEN)
        for kind, text in told(client, wire):
            tell(mesh.events.add(kind, text, connection=wire.id))

    def _client_name(self, request: control_pb2.ConnectRequest) -> str:
        """Return the name that the client gets; raises Invalid or Conflict where it cannot have it."""
        mesh, name = self.mesh, request.client
        if not name:
            owner = request.netns.removeprefix("/proc/").partition("/")[0] if request.netns else ""
            pid = request.pid or (int(owner) if owner.isdigit() else 0)
            name = f"pid-{pid}" if pid else name_suggestion(os.path.basename(request.netns)) or "client"  # noqa: PTH119 - of a text, which may be no path
        elif problem := name_problem(name):
            raise Invalid(problem, remedy=f"for example: --name {name_suggestion(name) or 'client-1'}")
        endpoints = [entry.name for entry in mesh.documents.of(Endpoint)]
        if name in mesh.taken or name in {*endpoints, *mesh.model.endpoints}:
            raise Conflict(
                f"{name} is the name of a part of the mesh already", remedy="give another one with --name"
            )
        return name

    async def _disconnect(self, request: control_pb2.DisconnectRequest, tell: Tell) -> None:
        clients = self.mesh.clients
        if request.connection:
            client, wire = clients.find(request.connection)
            self.mesh.connects.drop(client.name, str(wire.url))
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
        """Take a client and its wires away."""
        client = self.mesh.clients.known.get(name)
        self.mesh.connects.drop(name)
        self.mesh.followers.forget(name)
        await self.mesh.clients.remove(name)
        if ("workload", name) in self.mesh.documents.known:
            return
        self.mesh.placement.drop("client", name)
        if client is None:
            return
        if all(other.netns != client.netns for other in self.mesh.clients.known.values()):
            self.mesh.children.drop_place(client.netns)

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

    async def _get(self, call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:  # noqa: ARG002 - the face asks for it
        request = parsed(control_pb2.GetRequest, body)
        async for found in listing(self.mesh, self.rows, request):
            yield found

    async def _status(self, call: rpc.ServerCall, body: bytes) -> bytes:  # noqa: ARG002 - the face asks for it
        forgotten = [asdict(leak) for leak in await leaked(self.mesh)]
        return item({**self.rows.status(), "leaks": forgotten})

    async def _create_token(self, call: rpc.ServerCall, body: bytes) -> bytes:  # noqa: ARG002 - the face asks for it
        request = parsed(control_pb2.TokenRequest, body)
        host = first_host(self.mesh.hosts, self.mesh.paths.mesh)
        made = host.token(request.lifetime)
        return control_pb2.Token(text=str(made), address=str(host.place.address)).SerializeToString()

    async def _remove_node(self, request: control_pb2.NodeRequest, tell: Tell) -> None:
        first_host(self.mesh.hosts, self.mesh.paths.mesh).remove(request.name)
        tell(self.mesh.events.add("node", f"node {request.name} removed"))

    async def _down(self, request: control_pb2.Empty, tell: Tell) -> None:  # noqa: ARG002 - the face asks for it
        tell(self.mesh.events.add("mesh", f"mesh {self.mesh.paths.mesh} goes down"))
        self._stop.set()

    async def _restart(self, request: control_pb2.UnitRequest, tell: Tell) -> None:
        await restart(self.mesh, request.name, tell)

    async def _hand_over(self, request: control_pb2.HandOverRequest, tell: Tell) -> None:
        self._succeeded_by(await succession.prepare(self.mesh, request.executable or sys.executable), tell)

    async def _upgrade(self, request: control_pb2.UpgradeRequest, tell: Tell) -> None:
        if request.check:
            forks = await upgrading.check(self.mesh, request.executable, request.version)
            forks.close()
            return
        daemon = await upgrading.upgrade(self.mesh, request.executable, request.version, tell)
        upgrading.forget_copies(self.mesh)
        self._succeeded_by(daemon, tell)

    def _succeeded_by(self, pid: int, tell: Tell) -> None:
        """End, and leave all to the daemon of that pid, which waits."""
        text = f"the daemon ends and leaves all as it is for the next one, pid {pid}"
        tell(self.mesh.events.add("mesh", text))
        self.mesh.hands_over = True
        hand_over()
        self._stop.set()
