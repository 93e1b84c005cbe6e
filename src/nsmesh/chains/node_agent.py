"""The agent of a Kubernetes node: makes the wires of pods that have no client, from outside of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from nsmesh.chains.pod_wires import JOURNAL, LINK, PodWires
from nsmesh.chains.settings_node_agent import NodeAgentSettings
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.core.scope import Scope
from nsmesh.journal.file import forget_journal
from nsmesh.kubernetes.client import Object, collection, connected
from nsmesh.kubernetes.pod_processes import PodNamespace, oldest_processes
from nsmesh.kubernetes.pod_selectors import selectors_of
from nsmesh.kubernetes.reflector import Reflector
from nsmesh.kubernetes.wishes import MODES, is_in_node_network, wish_of

log = structlog.get_logger()

PROCESS, SELECTORS = "process", "selectors"
LOOK, SELDOM = 0.1, 2.0
"""Seconds between two looks at processes while pods wait for their first one: at least, and at most."""


class PodProcesses:
    """Finds the first process of pods, for all who wait in one look."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._new = asyncio.Event()

    async def find(self, uid: str) -> PodNamespace:
        """Return a pod's network namespace as soon as it has a process; raises Invalid, Unauthorized."""
        while True:
            waiter = self._waiting[uid] = asyncio.get_running_loop().create_future()
            self._new.set()
            try:
                space = PodNamespace.opened(uid, await waiter)
            finally:
                self._waiting.pop(uid, None)
            if space is not None:
                return space
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Look, as long as anybody waits, until cancelled; less and less often, unless somebody new waits."""
        pause = LOOK
        while True:
            if not self._waiting:
                await self._new.wait()
            pause = LOOK if self._new.is_set() else min(pause * 1.2, SELDOM)
            self._new.clear()
            for uid, pid in oldest_processes(self._waiting.keys()).items():
                waiter = self._waiting.pop(uid)
                if not waiter.done():
                    waiter.set_result(pid)
            await asyncio.sleep(LOOK)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause - LOOK):
                    await self._new.wait()


class NodeAgent:
    """Follows the pods of a node, and the namespaces that they are in; a task for each pod with a wish."""

    def __init__(self, settings: NodeAgentSettings, scope: Scope) -> None:
        self._settings = settings
        self._scope = scope
        self._pods: dict[str, Object] = {}
        self._namespaces: dict[str, Object] = {}
        self._listed: set[str] = set()
        self._kept: dict[str, tuple[PodWires, asyncio.Task[None]]] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}
        self._processes = PodProcesses()
        self.stays = False
        """Whether wires stay when their tasks end: this agent ends, and another one goes on."""
        self.pods = _Held(self._pods, "uid", lambda: self._look("pods"))
        self.namespaces = _Held(self._namespaces, "name", lambda: self._look("namespaces"))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for processes while the block runs; the wires stay when it ends."""
        self._scope.spawn(self._processes.look(), name="processes of pods")
        try:
            yield
        finally:
            self.stays = True

    def _look(self, what: str) -> None:
        """Begin and end what has to be, once all has been listed."""
        self._listed.add(what)
        if len(self._listed) < 2:
            return
        first = not self._kept and not self._ending
        for uid in [uid for uid in self._kept if uid not in self._pods]:
            self._end(uid)
        for uid in [uid for uid in self._refused if uid not in self._pods]:
            del self._refused[uid]
        for uid, pod in self._pods.items():
            self._settle(uid, pod)
        if first:
            self._forget_others()

    def _settle(self, uid: str, pod: Object) -> None:
        text = self._wanted(uid, pod)
        kept = self._kept.get(uid)
        if kept is not None and kept[0].text != text:
            self._end(uid)
            kept = None
        if text and kept is None and uid not in self._ending:
            meta = pod["metadata"]
            wires = PodWires(
                self._settings,
                meta["namespace"],
                meta["name"],
                uid,
                text,
                selectors=selectors_of(pod) if self._settings.delegated_identity_by == SELECTORS else (),
                find=self._processes.find,
                leaves=lambda: self.stays,
                clock=self._scope.clock,
            )
            self._kept[uid] = wires, self._scope.spawn(wires.run(), name=f"wires of {meta['name']}")

    def _wanted(self, uid: str, pod: Object) -> str:
        """Return what we are to make for a pod; what cannot be made is said once."""
        meta = pod["metadata"]
        try:
            wish = wish_of(pod, self._namespaces.get(meta["namespace"], {}), self._settings.mode)
            if wish is None or not wish.by_agent:
                return ""
            if is_in_node_network(pod):
                raise Invalid("the pod is in the network of its node", remedy="leave hostNetwork out")
            wish.wires()
        except MeshError as error:
            if self._refused.get(uid) != str(error):
                self._refused[uid] = str(error)
                log.warning("no wires for a pod", pod=f"{meta['namespace']}/{meta['name']}", error=str(error))
            return ""
        return wish.text

    def _end(self, uid: str) -> None:
        """Close a pod's wires; what it wishes for then is begun when they are."""
        wires, task = self._kept.pop(uid)
        self._ending[uid] = task
        log.info("wires of a pod are closed", pod=uid, wires=wires.text)

        def ended(_: object) -> None:
            del self._ending[uid]
            if uid in self._pods and not self.stays:
                self._settle(uid, self._pods[uid])

        task.add_done_callback(ended)
        task.cancel()

    def _forget_others(self) -> None:
        """Remove what an earlier agent kept of pods that are gone."""
        for suffix in (JOURNAL, LINK):
            for path in Path(self._settings.folder).glob(f"*{suffix}"):
                if path.name.removesuffix(suffix) not in self._kept:
                    forget_journal(path)


class _Held:
    """A :class:`Sink` that keeps objects by a field of their metadata, and tells of every change."""

    def __init__(self, held: dict[str, Object], key: str, tell: Callable[[], None]) -> None:
        self._held = held
        self._key = key
        self._tell = tell

    def changed(self, item: Object) -> None:
        """See :class:`Sink`."""
        self._held[item["metadata"][self._key]] = item
        self._tell()

    def deleted(self, item: Object) -> None:
        """See :class:`Sink`."""
        self._held.pop(item["metadata"][self._key], None)
        self._tell()

    def replace(self, items: list[Object], version: str) -> None:  # noqa: ARG002 - a Sink's face
        """See :class:`Sink`."""
        self._held.clear()
        self._held.update((item["metadata"][self._key], item) for item in items)
        self._tell()


@asynccontextmanager
async def running_node_agent(settings: NodeAgentSettings) -> AsyncIterator[NodeAgent]:
    """Look after the pods of a node while the block runs; their wires stay when it ends."""
    if not settings.node_name:
        raise Invalid("NODE_NAME is not set", remedy="set it from spec.nodeName, by the downward API")
    if settings.mode not in MODES:
        raise Invalid(f"NSM_MODE is {settings.mode!r}", remedy=f"say {' or '.join(MODES)}")
    if settings.delegated_identity_by not in {PROCESS, SELECTORS}:
        raise Invalid(
            f"NSM_DELEGATED_IDENTITY_BY is {settings.delegated_identity_by!r}",
            remedy=f"say {PROCESS} or {SELECTORS}",
        )
    Path(settings.folder).mkdir(parents=True, exist_ok=True)
    chosen = {"fieldSelector": f"spec.nodeName={settings.node_name}"}
    async with connected(rate=settings.kubelet_qps) as api, Scope("node agent") as scope:
        agent = NodeAgent(settings, scope)
        async with agent.running():
            pods = Reflector(api, collection("v1", "pods"), agent.pods, chosen)
            namespaces = Reflector(api, collection("v1", "namespaces"), agent.namespaces)
            scope.spawn(pods.run(), name="watch pods")
            scope.spawn(namespaces.run(), name="watch namespaces")
            log.info("node agent ready", node=settings.node_name)
            yield agent


async def serve_node_agent(settings: NodeAgentSettings, stop: asyncio.Event) -> None:
    """Look after the pods of a node until ``stop``."""
    async with running_node_agent(settings):
        await stop.wait()
