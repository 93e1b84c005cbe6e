"""A mesh of its own to break things in: brought up, driven as its users do, and taken away altogether."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from nsmesh import rpc
from nsmesh.api import control_pb2
from nsmesh.chaos.clocks import SetClock, library
from nsmesh.core.errors import Internal, MeshError, NotFound, Refused, TimedOut
from nsmesh.datapath import netns, programs
from nsmesh.datapath.ovs_own import PROGRAMS
from nsmesh.datapath.ovs_programs import running
from nsmesh.model import control
from nsmesh.standalone import launch, leftovers
from nsmesh.standalone.leaks import left_behind
from nsmesh.standalone.lock import daemon_pid
from nsmesh.standalone.paths import MeshPaths

UP = 40.0
"""Seconds within which a mesh has what an earlier one had."""
SMALL = "8m"
"""Size of a small file system, as mount takes it."""


class Ground:
    """One mesh under test. ``options``: of ``nsm up``. ``left``: what it left behind, once it is down.

    ``small``: its run directory is a file system of its own, of :data:`SMALL`. ``clock``: it has one of its
    own; raises NotFound where that cannot be.
    """

    def __init__(self, options: Sequence[str] = (), *, small: bool = False, clock: bool = False) -> None:
        if clock:
            library()
        self.options = tuple(options)
        self.folder = Path(tempfile.mkdtemp(prefix=f"nsm-chaos-{os.getpid()}-"))
        self.clock = SetClock(self.folder) if clock else None
        name = f"chaos{os.getpid()}{uuid.uuid4().hex[:4]}"
        self.paths = MeshPaths.of(name, str(self.folder / "run"), str(self.folder / "state"))
        self.small = small
        self.left: list[str] = []
        self._spaces: list[str] = []

    async def up(self) -> None:
        """Bring the mesh up, for the first time or again, and wait until all is there. Raises MeshError."""
        paths = self.paths
        if self.small and not paths.run.exists():
            paths.run.mkdir(parents=True)
            how = ("-t", "tmpfs", "-o", f"size={SMALL}", "nsm-chaos", str(paths.run))
            await programs.demand(Internal, "mount", *how)
        paths.make()
        words = [*self._place, "up", "--foreground", *self.options]
        await launch.launch(paths, words, environment=self.clock.environment if self.clock else {})
        end = asyncio.get_running_loop().time() + UP
        while (await self.status())["state"] == "restoring":
            if asyncio.get_running_loop().time() > end:
                raise TimedOut(f"the mesh {paths.mesh} is still restoring after {UP:g} s")
            await asyncio.sleep(0.02)

    @property
    def _place(self) -> list[str]:
        return [
            "--mesh",
            self.paths.mesh,
            "--run-dir",
            str(self.paths.run),
            "--state-dir",
            str(self.paths.state),
        ]

    async def command(self, *words: str) -> None:
        """Run ``nsm WORDS`` on the mesh, as its operator; raises Internal with what it said."""
        argv = (sys.executable, "-m", "nsmesh.cli.main", *self._place, *words)
        await programs.demand(Internal, *argv, patience=UP)

    def space(self, label: str) -> str:
        """Make a namespace of a user's and return its path; it ends with the mesh."""
        name = f"{self.paths.mesh}-{label}"
        self._spaces.append(name)
        return netns.create(name)

    async def _steps(self, path: str, message: Any) -> None:
        """Make a call that reports steps; raises Refused with the last one that failed."""
        failed: MeshError | None = None
        async with self._client() as client:
            async for body in client.stream(path, message.SerializeToString()):
                step = control_pb2.Step.FromString(body)
                if step.failed:
                    failed = Refused(step.text, remedy=step.remedy)
        if failed is not None:
            raise failed

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[rpc.Client]:
        client = await rpc.connect(f"unix://{self.paths.control}", timeout=3.0)
        try:
            yield client
        finally:
            await client.aclose()

    async def apply(self, text: str) -> None:
        """Apply documents and wait for their wires; raises MeshError."""
        manifest = control_pb2.Manifest(text=text, source="chaos", directory=str(self.folder))
        await self._steps(control.APPLY, control_pb2.ApplyRequest(manifests=[manifest], wait=True))

    async def delete(self, kind: str, name: str) -> None:
        """Delete what was applied, by kind and name; raises MeshError."""
        await self._steps(control.DELETE, control_pb2.DeleteRequest(kind=kind, name=name))

    async def connect(self, url: str, space: str, name: str, node: str = "") -> None:
        """Ask once for a wire into the namespace at a path; raises MeshError."""
        await self._steps(
            control.CONNECT, control_pb2.ConnectRequest(url=url, netns=space, client=name, node=node)
        )

    async def disconnect(self, name: str) -> None:
        """Close the wires of a client; raises MeshError."""
        await self._steps(control.DISCONNECT, control_pb2.DisconnectRequest(client=name))

    async def rows(self, what: str, name: str = "") -> list[dict[str, Any]]:
        """Return what ``nsm get`` lists; raises MeshError."""
        request = control_pb2.GetRequest(what=what, name=name)
        async with self._client() as client:
            bodies = [body async for body in client.stream(control.GET, request.SerializeToString())]
        return [json.loads(control_pb2.Item.FromString(body).json) for body in bodies]

    async def status(self) -> dict[str, Any]:
        """Return what ``nsm status`` shows; raises MeshError."""
        async with self._client() as client:
            reply = await client.unary(control.STATUS, control_pb2.Empty().SerializeToString())
        found: dict[str, Any] = json.loads(control_pb2.Item.FromString(reply.message).json)
        return found

    async def pid(self, unit: str) -> int:
        """Return the process of a role (``registry``, ``nsmgr-node1``), an endpoint, a switch, or ``daemon``.

        Raises NotFound where none of that name runs.
        """
        if unit == "daemon":
            found = daemon_pid(self.paths)
        elif unit in PROGRAMS:
            found = running(self.paths.switch() / f"{unit}.pid", unit)
        else:
            data = await self.status()
            pids = {row["name"]: row["pid"] for row in data["endpoints"]}
            pids |= {"-".join(filter(None, (row["role"], row["node"]))): row["pid"] for row in data["roles"]}
            found = pids.get(unit)
        if not found:
            raise NotFound(f"no process {unit} runs in the mesh {self.paths.mesh}")
        return found

    async def down(self) -> list[str]:
        """Take everything away, whatever state it is in; return in words what a dead mesh had left."""
        pid = daemon_pid(self.paths)
        if pid is not None:
            with suppress(MeshError):
                await self._steps(control.DOWN, control_pb2.Empty())
            try:
                await launch.wait_gone(self.paths, pid)
            except MeshError:
                os.kill(pid, signal.SIGKILL)
                await launch.wait_gone(self.paths, pid)
        left = await leftovers.clear(self.paths)
        left += [f"{leak.kind} {leak.name}" for leak in await left_behind(self.paths, self._places())]
        for name in self._spaces:
            netns.delete(name)
        self._spaces.clear()
        if self.small:
            await programs.run("umount", "--lazy", str(self.paths.run))
        shutil.rmtree(self.folder, ignore_errors=True)
        self.left = left
        return left

    def _places(self) -> list[str]:
        paths = (f"{netns.RUN_NETNS}/{name}" for name in self._spaces)
        return [path for path in paths if os.path.lexists(path)]


@asynccontextmanager
async def ground(*options: str, small: bool = False, clock: bool = False) -> AsyncIterator[Ground]:
    """Have a mesh while the block runs, and nothing of it afterwards, also where the block is cancelled."""
    one = Ground(options, small=small, clock=clock)
    try:
        await one.up()
        yield one
    finally:
        await asyncio.shield(one.down())
