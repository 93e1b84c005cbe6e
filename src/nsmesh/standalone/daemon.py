"""The daemon of a mesh: ``nsm up --foreground``."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field

import structlog

from nsmesh import rpc
from nsmesh.chains.settings_common import Common
from nsmesh.core import garbage, logging
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.model.settings import SettingsError, load
from nsmesh.rpc import inherited
from nsmesh.standalone import adopting, leftovers
from nsmesh.standalone.control import Control
from nsmesh.standalone.forking import ForkServer
from nsmesh.standalone.forwarder_wishes import ForwarderWishes
from nsmesh.standalone.joining.member import Member
from nsmesh.standalone.joining.place import Place
from nsmesh.standalone.lock import MeshLock
from nsmesh.standalone.lost_services import LostServices
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.nodes import Conditions
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.reconcile import Reconciler
from nsmesh.standalone.reconnecting import reconnect
from nsmesh.standalone.running import running_mesh
from nsmesh.standalone.succession import Predecessor
from nsmesh.telemetry.running import telemetry

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What ``nsm up`` was told. ``listen``: where other hosts may join; None: as before.

    ``forwarders``: what its forwarders are to be like, told by the environment too, and kept once it is up.
    """

    separate: bool = False
    conditions: Conditions = field(default_factory=Conditions)
    listen: Place | None = None
    forwarders: ForwarderWishes = field(default_factory=ForwarderWishes)


def run(
    paths: MeshPaths, wishes: Wishes, level: str, forks: ForkServer, predecessor: Predecessor | None = None
) -> None:
    """Run until SIGTERM, SIGINT or ``nsm down``; then take everything down, the run directory too.

    ``forks`` starts its processes; a ``predecessor`` is waited for. Raises Conflict when this mesh is up
    already. SIGUSR1 logs everything, SIGUSR2 goes back.
    """
    logging.configure(role=f"mesh-{paths.mesh}", level=level)
    if predecessor is not None:
        predecessor.wait()
    lock = MeshLock(paths)
    lock.take()
    try:
        with suppress(KeyboardInterrupt, asyncio.CancelledError):  # asked to end before it was up
            if asyncio.run(_main(paths, wishes, level, forks)):
                return
        if not leftovers.find(paths):
            paths.clear()
    finally:
        lock.release()


async def _main(paths: MeshPaths, wishes: Wishes, level: str, forks: ForkServer) -> bool:
    """Run the mesh; return whether another daemon goes on with it."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    starting = asyncio.current_task()

    def end() -> None:
        stop.set()
        if starting is not None:
            starting.cancel()  # the start is broken off, and what it made is taken away

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGUSR1, logging.set_level, "TRACE")
    loop.add_signal_handler(signal.SIGUSR2, logging.set_level, level)
    separate = wishes.separate or wishes.conditions.nodes > 1
    mode = adopting.mode_of(wishes.conditions, separate=separate)
    left = await adopting.take_over(paths, mode, forks)
    running = running_mesh(
        paths, separate=wishes.separate, conditions=wishes.conditions, listen=wishes.listen, forks=forks
    )
    async with _telemetry(paths), running as mesh:
        starting = None
        wishes.forwarders.save(paths.forwarders)
        mesh.children.set_mode(mode)
        for item in left:
            mesh.events.add("mesh", f"removed what a dead mesh had left: {item}")
            log.warning("removed what a dead mesh had left", what=item)
        await _serve(mesh, stop)
    return mesh.hands_over


def _telemetry(paths: MeshPaths) -> AbstractAsyncContextManager[None]:
    """Return metrics and traces as the environment says; the processes that we start serve theirs to us.

    Raises Invalid for settings that cannot be used.
    """
    try:
        wishes = load(Common, os.environ)
    except SettingsError as error:
        raise Invalid(str(error), remedy="correct these variables") from error
    folder = paths.run / "metrics"
    if wishes.prometheus:
        os.environ["NSM_PROMETHEUS_LISTEN_ON"] = f"unix://{folder}/"
    return telemetry(wishes, f"mesh-{paths.mesh}", folder)


async def _serve(mesh: Mesh, stop: asyncio.Event) -> None:
    reconciler = Reconciler(mesh)
    control = Control(mesh, reconciler, stop)
    async with rpc.serve(f"unix://{mesh.paths.control}", control.methods()):
        if isinstance(mesh.hosts, Member):
            mesh.hosts.removed = stop.set
        garbage.settle()
        log.info("mesh ready", control=str(mesh.paths.control))
        mesh.scope.spawn(LostServices(mesh, reconciler.entries).watch(), name="lost services")
        mesh.scope.spawn(garbage.tidied(), name="tidy up")
        restoring = mesh.scope.spawn(_restore(mesh, reconciler), name="restore")
        await stop.wait()
        log.info("mesh goes down")
        mesh.state = "going down"
        restoring.cancel()
        await asyncio.wait([restoring])


async def _restore(mesh: Mesh, reconciler: Reconciler) -> None:
    try:
        if isinstance(mesh.hosts, Member):
            # before the first host and its registry are there nothing can be registered
            await mesh.hosts.reached.wait()
            await mesh.model.listed.wait()
        await reconciler.restore(lambda _event: None)
        await reconnect(mesh)
        for item in await adopting.settle(mesh):
            mesh.events.add("mesh", f"removed what a dead mesh had left: {item}")
        for url in rpc.unclaimed():
            log.info("nobody listens any more where the last daemon did", socket=url)
        inherited.drop_unclaimed()
    except MeshError as error:
        mesh.events.add(
            "mesh", f"not everything is as it was: {error.what}", failed=True, remedy=error.remedy
        )
    finally:
        mesh.state = "up"
        mesh.news.tell()
