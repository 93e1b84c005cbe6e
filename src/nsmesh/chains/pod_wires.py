"""The wires of one pod that has no client: made from outside, in its network namespace and in its name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from nsmesh import rpc
from nsmesh.chains.delegated_client import DelegatedWatch
from nsmesh.chains.nsc import running_nsc
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.secured import Secured
from nsmesh.chains.settings_node_agent import NodeAgentSettings
from nsmesh.chains.settings_nsc import NscSettings
from nsmesh.chains.workload_client import fetched_identity
from nsmesh.core.clock import Clock
from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.heal_looks import Alive
from nsmesh.core.pauses import pauses
from nsmesh.core.scope import Scope
from nsmesh.core.tokens import PlainTokens
from nsmesh.elements.peer import LocalPeers, RemotePeers
from nsmesh.journal.file import FileJournal, forget_journal
from nsmesh.kubernetes.pod_processes import PodNamespace
from nsmesh.model.messages import Connection
from nsmesh.security.svid import SvidSource

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two tries of what failed for a pod."""
LONGEST_RETRY = 5.0
"""Most seconds between two tries of a Request that is refused: one agent asks for all pods of its node."""
LOOK = 0.02
"""Seconds between two looks at an interface that is not there."""
JOURNAL, LINK = ".journal.db", ".netns"
_LONGEST_NAME = 200
Find = Callable[[str], Awaitable[PodNamespace]]
"""Waits until a pod, by its uid, has a process, and opens its namespace."""


class PodWires:
    """Makes and keeps the wires of one pod. ``text``: its network service URLs.

    ``selectors`` say who it is where its identity is asked for by those; else a process of it is named.
    ``leaves`` says at the end whether the wires stay for the next agent; else they are closed.
    """

    def __init__(
        self,
        settings: NodeAgentSettings,
        namespace: str,
        pod: str,
        uid: str,
        text: str,
        *,
        selectors: Sequence[str],
        find: Find,
        leaves: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self.text = text
        self._uid = uid
        self._selectors = selectors
        self._find = find
        self._leaves = leaves
        self._clock = clock
        self._settings = settings
        self._where = f"{namespace}/{pod}"
        self._link = Path(settings.folder) / f"{uid}{LINK}"
        self._nsc = NscSettings(
            name=f"{pod[:_LONGEST_NAME]}-{uid[:8]}",
            connect_to=settings.connect_to,
            network_services=(text,),
            netns=str(self._link),
            dial_timeout=settings.dial_timeout,
            request_timeout=settings.request_timeout,
            max_token_lifetime=settings.max_token_lifetime,
            node_name=settings.node_name,
            pod_name=pod,
            cluster_name=settings.cluster_name,
            liveness_check_enabled=settings.liveness_check_enabled,
            liveness_check_interval=settings.liveness_check_interval,
            liveness_check_timeout=settings.liveness_check_timeout,
        )

    async def run(self) -> None:
        """Keep the wires until cancelled: of each network namespace that the pod has, one after another."""
        delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                space = await self._find(self._uid)
                with space:
                    log.info("pod found", pod=self._where, process=space.pid, netns=space.inode)
                    await self._keep(space)
                delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
            except (MeshError, OSError) as error:
                log.warning("no wires for a pod", pod=self._where, error=str(error))
                await asyncio.sleep(next(delays))

    async def _keep(self, space: PodNamespace) -> None:
        """Keep the wires in a namespace until its process is gone, or we are cancelled."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(space.pidfd, ended.set)
        journal = Path(self._settings.folder) / f"{self._uid}{JOURNAL}"
        # What is agreed names the namespace by this path. It leads to our descriptor, then to that of a
        # successor; while nobody holds one, it leads nowhere, and never to another pod.
        _point(self._link, space.path)
        try:
            async with Scope(f"pod {self._where}", self._clock) as scope:
                scope.spawn(self._hold(space, journal), name="wires")
                await ended.wait()
            log.info("pod ended", pod=self._where, process=space.pid)
        finally:
            loop.remove_reader(space.pidfd)
            if not self._leaves():
                self._link.unlink(missing_ok=True)
                forget_journal(journal)

    async def _hold(self, space: PodNamespace, journal: Path) -> None:
        """Ask for the wires and keep them, until cancelled; what fails is tried again."""
        delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                async with (
                    self._runtime(space, journal) as runtime,
                    running_nsc(
                        self._nsc,
                        runtime,
                        alive=self._look(space),
                        leaves=self._leaves,
                        longest_pause=LONGEST_RETRY,
                    ),
                ):
                    await asyncio.Event().wait()
            except (MeshError, OSError) as error:
                log.warning("no wires for a pod", pod=self._where, error=str(error))
                await asyncio.sleep(next(delays))

    def _look(self, space: PodNamespace) -> Alive | None:
        """Return what tells a wire that stands from one that does not; None: the probes of a client do."""
        if self._settings.liveness_check_enabled:
            return None

        async def stands(connection: Connection) -> bool:
            # The forwarder makes an interface again at once when somebody deletes it.
            end = asyncio.get_running_loop().time() + self._settings.liveness_check_timeout
            while not space.has(connection.mechanism.parameters.get("name", "")):
                if asyncio.get_running_loop().time() >= end:
                    return False
                await asyncio.sleep(LOOK)
            return True

        return stands

    @asynccontextmanager
    async def _runtime(self, space: PodNamespace, journal: Path) -> AsyncIterator[Runtime]:
        """Hold the pod's identity, and connections that are its own."""
        url = self._settings.delegated_identity_socket
        lifetime = self._settings.max_token_lifetime
        async with AsyncExitStack() as stack:
            secured = None
            if url:
                source = await stack.enter_async_context(self._identity(space, url))
                secured = Secured(source, lifetime=lifetime, clock=self._clock)
            pool = rpc.Pool(
                timeout=self._settings.dial_timeout, identity=secured.identity if secured else None
            )
            stack.push_async_callback(pool.aclose)
            yield Runtime(
                peers=LocalPeers({}, RemotePeers(pool)),
                tokens=secured.tokens if secured else PlainTokens(self._clock, lifetime),
                secured=secured,
                clock=self._clock,
                journal=stack.enter_context(FileJournal(journal)),
            )

    def _identity(self, space: PodNamespace, url: str) -> AbstractAsyncContextManager[SvidSource]:
        def pid() -> int:
            return 0 if space.ended else space.pid

        wait = self._settings.request_timeout
        watching = partial(DelegatedWatch, pid, self._selectors)
        return fetched_identity(url, wait=wait, clock=self._clock, watching=watching)


def _point(link: Path, target: str) -> None:
    """Let a link lead somewhere else, at once; raises Unavailable where it cannot be made."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)
    except OSError as error:
        raise Unavailable(
            f"{link} cannot be made: {error.strerror}", remedy="name a folder to write in with NSM_FOLDER"
        ) from error
