"""The daemon of a mesh: ``nsm up --foreground``."""

from __future__ import annotations

import asyncio
import signal

import structlog

from nsmesh import rpc
from nsmesh.core import logging
from nsmesh.core.errors import MeshError
from nsmesh.standalone.control import Control
from nsmesh.standalone.mesh import running_mesh
from nsmesh.standalone.paths import Lock, MeshPaths
from nsmesh.standalone.reconcile import Reconciler

log = structlog.get_logger()


def run(paths: MeshPaths, *, separate: bool, level: str) -> None:
    """Run until SIGTERM, SIGINT or ``nsm down``; then take everything down.

    Raises Conflict when this mesh is up already. SIGUSR1 logs everything, SIGUSR2 goes back.
    """
    logging.configure(role=f"mesh-{paths.mesh}", level=level)
    lock = Lock(paths)
    lock.take()
    try:
        asyncio.run(_main(paths, separate=separate, level=level))
    finally:
        lock.release()


async def _main(paths: MeshPaths, *, separate: bool, level: str) -> None:
    loop = asyncio.get_running_loop()
    async with running_mesh(paths, separate=separate) as mesh:
        reconciler = Reconciler(mesh)
        control = Control(mesh, reconciler)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, control.down.set)
        loop.add_signal_handler(signal.SIGUSR1, logging.set_level, "TRACE")
        loop.add_signal_handler(signal.SIGUSR2, logging.set_level, level)
        async with rpc.serve(f"unix://{paths.control}", control.methods()):
            log.info("mesh ready", control=str(paths.control))
            try:
                await reconciler.restore()
            except MeshError as error:
                log.warning("not everything could be restored", error=str(error))
            await control.down.wait()
            log.info("mesh goes down")
