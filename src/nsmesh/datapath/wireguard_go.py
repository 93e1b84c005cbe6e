"""The program wireguard-go: WireGuard where the kernel has none. How it is started and spoken to.

It offers its control socket at ``/var/run/wireguard/NAME.sock``, one folder for all network namespaces of the
machine. It is started in a mount namespace of its own with an empty ``/var/run``, so that two instances may
use the same interface name and nothing stays behind; the socket is reached through ``/proc/PID/root``. Where
mounting is not allowed (a container has its own folder anyway) the usual place is used.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from nsmesh.core.errors import NotFound, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.datapath import programs
from nsmesh.datapath.child import Child
from nsmesh.datapath.wireguard_text import uapi_answer

PROGRAM = "wireguard-go"
SOCKETS = "/var/run/wireguard"
"""Folder in which it makes its sockets."""
READY = 5.0
"""Seconds until the socket of one that was just started is there."""
ENVIRONMENT = {"LOG_LEVEL": "error"}

_HIDDEN = 'mount -t tmpfs -o mode=755 tmpfs /var/run && exec "$0" -f "$1"'
_AGAIN = 0.002


async def can_hide() -> bool:
    """Return whether a program may have a mount namespace of its own here, and there is what makes one."""
    try:
        return (await programs.run("unshare", "--mount", "true")).code == 0
    except NotFound:  # an image without a shell
        return False


def command(name: str, *, hidden: bool) -> tuple[str, ...]:
    """Return the command that runs one for the interface ``name`` and stays in the foreground."""
    if not hidden:
        return (PROGRAM, "-f", name)
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", _HIDDEN, PROGRAM, name)


def socket_of(name: str, pid: int, *, hidden: bool) -> Path:
    """Return where the one with ``pid`` listens."""
    folder = Path(SOCKETS)
    if hidden:
        # resolved here: an absolute link below /proc/PID/root would lead back to our own root
        folder = Path(f"/proc/{pid}/root") / folder.resolve().relative_to("/")
    return folder / f"{name}.sock"


async def ask(socket: Path, request: str) -> list[tuple[str, str]]:
    """Send a request and return the pairs of its answer. Raises Unavailable, or Refused."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        raise Unavailable(f"{PROGRAM} does not answer at {socket}: {error.strerror}") from None
    try:
        writer.write(request.encode())
        async with asyncio.timeout(READY):
            answer = await reader.readuntil(b"\n\n")
    except (OSError, EOFError, TimeoutError) as error:
        raise Unavailable(f"{PROGRAM} did not answer at {socket}: {error!r}") from None
    finally:
        writer.close()
    return uapi_answer(answer.decode())


async def ask_first(scope: Scope, child: Child, socket: Path, request: str) -> None:
    """Send the first request to one that was just started. Raises NotFound, Unavailable or Refused."""
    end = scope.clock.monotonic() + READY
    while True:
        try:
            await ask(socket, request)
        except Unavailable:
            if scope.clock.monotonic() > end:
                raise
        else:
            return
        if child.pid is None:
            raise NotFound(
                f"this kernel has no WireGuard, and {PROGRAM} ended at once",
                remedy=f"load the module wireguard or install {PROGRAM}; /dev/net/tun must be there",
            )
        await asyncio.sleep(_AGAIN)
