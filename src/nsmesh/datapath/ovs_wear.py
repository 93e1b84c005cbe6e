"""What a switch uses up while memif ports come and go, which DPDK never gives back.

With each memif port that goes, DPDK's driver keeps some 81 KB, most of it handles of interrupts, and the
descriptor of the socket at which it listened. After many ports it takes no more.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import time
from pathlib import Path

from nsmesh.core.errors import Unavailable
from nsmesh.core.metrics import Gauge

MEMORY = Gauge(
    "nsmesh_dpdk_memory_bytes",
    "Memory of DPDK in this node's switch, free or used; ports that go do not give back all of theirs.",
    ("state",),
)
LEAST = 2 << 20
"""Bytes that DPDK must have free: a port needs a part of that."""
REST = 60.0
"""Seconds between two switches: all wires pause while one follows the other."""
DESCRIPTORS = 65536
"""Descriptors that a switch may have at most, where its host allows as many: its memory ends before them."""
_PATIENCE = 5.0


async def command(socket: Path, name: str, *arguments: str) -> str:
    """Have a daemon of Open vSwitch do one of its commands (``ovs-appctl``); return what it says.

    Raises Unavailable where it does not answer or refuses.
    """
    request = {"id": 0, "method": name, "params": list(arguments)}
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(json.dumps(request).encode())
                text = b""
                while (answer := _whole(text)) is None:
                    part = await reader.read(65536)
                    if not part:
                        raise ConnectionError("it closed the connection")
                    text += part
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"nobody answers {name} at {socket}: {error or 'nothing came in time'}") from error
    if answer.get("error"):
        raise Unavailable(f"{name} was refused at {socket}: {answer['error']}")
    return str(answer.get("result", ""))


def _whole(text: bytes) -> dict[str, object] | None:
    try:
        found: dict[str, object] = json.loads(text)
    except ValueError:
        return None
    return found


async def free_memory(socket: Path) -> int:
    """Return how many bytes DPDK has left. Raises Unavailable where it does not run."""
    return (await memory(socket))["free"]


async def memory(socket: Path) -> dict[str, int]:
    """Return how many bytes of DPDK's are free, and how many are used. Raises Unavailable without DPDK."""
    said = await command(socket, "dpdk/get-malloc-stats")
    free, used = (
        list(map(int, re.findall(rf"\b{word}:(\d+)", said))) for word in ("Free_size", "Alloc_size")
    )
    if not free:
        raise Unavailable(f"the switch at {socket} does not tell its memory")
    return {"free": sum(free), "used": sum(used)}


async def is_worn_out(socket: Path, pid_file: Path) -> bool:
    """Whether a switch has no memory left for one more port, and has run long enough to be followed.

    One that had too little from the start would not be any better anew.
    """
    try:
        free = await free_memory(socket)
        age = time.time() - pid_file.stat().st_mtime
    except (Unavailable, OSError):
        return False
    return free < LEAST and age > REST


def allow_descriptors(pid: int) -> None:
    """Let a process have as many descriptors as its host allows; by default it is a thousand."""
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    limit = DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, DESCRIPTORS)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, most))
