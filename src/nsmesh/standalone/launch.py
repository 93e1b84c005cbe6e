"""Starting the daemon of a mesh, and taking down what a dead one left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence

from nsmesh import rpc
from nsmesh.core.errors import Internal, MeshError, Unavailable
from nsmesh.datapath import netns
from nsmesh.standalone import processes
from nsmesh.standalone.children import Children
from nsmesh.standalone.paths import MeshPaths, daemon_pid

START_TIMEOUT = 15.0
"""Seconds within which a daemon must answer."""


async def answers(paths: MeshPaths) -> bool:
    """Say whether somebody answers at the control socket."""
    try:
        client = await rpc.connect(f"unix://{paths.control}", timeout=1.0)
    except MeshError:
        return False
    await client.aclose()
    return True


async def launch(paths: MeshPaths, arguments: Sequence[str]) -> int:
    """Start ``nsm up --foreground`` with ``arguments`` in the background; return its pid when it answers.

    Raises Internal with the last lines of its log when it ends or does not answer in time.
    """
    log = paths.logs / "daemon.log"
    start_at = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "nsmesh.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd="/",
        )
    end = asyncio.get_running_loop().time() + START_TIMEOUT
    while asyncio.get_running_loop().time() < end:
        if await answers(paths):
            return child.pid
        if child.poll() is not None:
            break
        await asyncio.sleep(0.02)
    else:
        child.kill()
        child.wait()
    with log.open("rb") as lines:
        lines.seek(start_at)
        tail = lines.read().decode(errors="replace").strip().splitlines()[-5:]
    raise Internal(
        f"the daemon of the mesh {paths.mesh} did not start:\n  "
        + "\n  ".join(tail or ["(it said nothing)"]),
        remedy=f"see {log}, or run it in front of you: nsm up --foreground",
    )


async def wait_gone(paths: MeshPaths, timeout: float = 20.0) -> None:
    """Wait until the daemon is gone; raises Unavailable after ``timeout`` seconds."""
    end = asyncio.get_running_loop().time() + timeout
    while (pid := daemon_pid(paths)) is not None:
        if asyncio.get_running_loop().time() > end:
            raise Unavailable(
                f"the daemon of the mesh {paths.mesh} (pid {pid}) does not end",
                remedy=f"kill -9 {pid}, then once more: nsm down",
            )
        await asyncio.sleep(0.02)


async def clean_up(paths: MeshPaths) -> list[str]:
    """Remove what a dead daemon left: processes, namespaces, run directory; return what was found.

    Must not be called while a daemon lives.
    """
    found: list[str] = []
    if not paths.run.exists():
        return found
    children = Children(paths.children)
    living = {name: item for name, item in children.processes.items() if processes.alive(item)}
    found += [f"process {name} (pid {item.pid})" for name, item in sorted(living.items())]
    await processes.stop(list(living.values()))
    for name in sorted(children.namespaces):
        if os.path.lexists(f"{netns.RUN_NETNS}/{name}"):
            found.append(f"namespace {name}")
        netns.delete(name)
    paths.clear()
    return found
