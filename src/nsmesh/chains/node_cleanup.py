"""Takes away what a mesh has left on the nodes of a cluster, when it is uninstalled.

One pod for each node removes folders, and then stays; one Job waits until all have. So nobody needs a shell
on a node, and no pod the right to make others.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import structlog

from nsmesh.chains.settings_kubernetes import NodeCleanupSettings
from nsmesh.core.errors import Invalid, MeshError, NotFound

log = structlog.get_logger()

LOOK = 0.2
"""Seconds between two looks at what is not over yet."""


def _answers(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def _sockets(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*")) if path.is_socket()]


def _inside(host: Path, folder: str) -> Path:
    """Return a folder of the node as it is seen here; raises Invalid for one that a link leads away from."""
    path = host / folder.lstrip("/")
    if not folder.startswith("/") or path == host or ".." in path.parts or path.resolve() != path:
        raise Invalid(
            f"{folder} is not removed: it is no folder of its own on this node",
            remedy="name it by its absolute path without links",
        )
    return path


async def _unserved(folder: Path, patience: float) -> list[Path]:
    """Wait until nobody listens in a folder any more; return the sockets where somebody still does."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while served := [path for path in _sockets(folder) if _answers(path)]:
        if loop.time() > end:
            break
        await asyncio.sleep(LOOK)
    return served


async def clean(host: Path, sockets: Iterable[str], states: Iterable[str], patience: float) -> list[str]:
    """Remove folders of the node whose root is ``host``; return what is still there, with the reason.

    Of ``sockets`` only sockets go that nobody serves after ``patience`` seconds, and the folder once it is
    empty; ``states`` go with all that is in them. A parent that is empty then goes as well, unless it stands
    at the root.
    """
    kept: list[str] = []
    for folder in (*sockets, *states):
        try:
            path = _inside(host, folder)
            if not path.exists():
                continue
            if served := await _unserved(path, patience):
                kept += [f"{folder}/{one.name} is served" for one in served]
                continue
            if folder in states:
                shutil.rmtree(path)
            else:
                for one in _sockets(path):
                    one.unlink()
                path.rmdir()
            if path.parent.parent != host and not any(path.parent.iterdir()):
                path.parent.rmdir()
        except (OSError, MeshError) as error:
            kept.append(f"{folder}: {error}")
    return kept


async def wait_for_nodes(settings: NodeCleanupSettings, stop: asyncio.Event) -> None:
    """Wait until each node's pod has cleaned up, or the patience is over; then say which have not."""
    from nsmesh.kubernetes.client import connected  # noqa: PLC0415 - an extra

    where = f"/apis/apps/v1/namespaces/{settings.namespace}/daemonsets/{settings.wait_for}"
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.patience
    wanted = ready = -1
    async with connected() as api:
        while loop.time() < end and not stop.is_set():
            try:
                found = await api.call("GET", where)
                status = found.get("status", {})
                seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
                wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
                if seen and ready >= wanted:
                    log.info("all nodes are clean", nodes=wanted)
                    return
            except NotFound:
                raise
            except MeshError as error:
                log.warning("the nodes are not seen for now", error=str(error))
            await asyncio.sleep(LOOK)
    log.warning("some nodes were not reached: the mesh's folders stay there", nodes=wanted, clean=ready)


async def serve_node_cleanup(settings: NodeCleanupSettings, stop: asyncio.Event) -> None:
    """Clean this node up, or wait for all nodes, as the settings say."""
    if settings.wait_for:
        await wait_for_nodes(settings, stop)
        return
    host = Path(settings.host).resolve()
    kept = await clean(host, settings.socket_folders, settings.state_folders, settings.patience)
    for what in kept:
        log.warning("left on this node", what=what)
    log.info("this node is clean" if not kept else "this node is not clean", left=len(kept))
    if settings.stay:
        await stop.wait()
