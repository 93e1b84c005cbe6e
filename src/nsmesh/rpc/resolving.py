"""Addresses of hosts that are known by name: asked of the system's resolver, which may be silent for long.

The system's call cannot be ended. It runs in a thread that nobody waits for: not the dial, whose time is up
sooner, not other names, and not the end of the process.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TypeAlias

from nsmesh.core.errors import Unavailable

MOST = 64
"""Names that are asked for at a time; as many threads at the most."""

Found: TypeAlias = list[tuple[int, str]]
"""Family and address of each."""

_asked: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Future[Found | OSError]] = {}


async def addresses_of(host: str) -> Found:
    """Return a host's addresses; all who ask for one name meanwhile wait for one answer.

    Raises OSError where it has none, and Unavailable where :data:`MOST` others are asked for.
    """
    key = asyncio.get_running_loop(), host
    asked = _asked.get(key)
    if asked is None:
        if len(_asked) >= MOST:
            raise Unavailable(
                f"the host {host} is not looked up: {MOST} others are waited for",
                remedy="check the resolver, and the names in URLs",
            )
        asked = _asked[key] = key[0].create_future()
        threading.Thread(target=_ask, args=key, name=f"resolve {host}", daemon=True).start()
    found = await asyncio.shield(asked)
    if isinstance(found, OSError):
        raise found
    return found


def _ask(loop: asyncio.AbstractEventLoop, host: str) -> None:
    answer: Found | OSError
    try:
        answer = [
            (family, str(target[0]))
            for family, _, _, _, target in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        ]
    except OSError as error:
        answer = error
    except UnicodeError as error:  # no name at all, such as one with an empty label
        answer = OSError(0, str(error))
    try:
        loop.call_soon_threadsafe(_settle, loop, host, answer)
    except RuntimeError:  # the loop has ended meanwhile
        _asked.pop((loop, host), None)


def _settle(loop: asyncio.AbstractEventLoop, host: str, answer: Found | OSError) -> None:
    asked = _asked.pop((loop, host))
    if not asked.done():
        asked.set_result(answer)
