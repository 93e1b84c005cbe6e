"""Connecting to an address, and why that failed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket

from nsmesh.core.errors import MeshError, TimedOut, Unauthorized, Unavailable
from nsmesh.rpc import sockets
from nsmesh.rpc.address import STREAM, Address, short
from nsmesh.rpc.resolving import addresses_of

FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.02
"""Seconds between two looks at a unix socket whose backlog is full: the first and the longest."""


def _unreachable(address: Address, error: OSError) -> MeshError:
    """Return the error for a dial that failed with ``error``."""
    where = address.url
    if address.unix:
        if error.errno == errno.ENOENT:
            return Unavailable(
                f"nobody listens on {where}: there is no such socket",
                remedy="start the server, or check the path",
            )
        if error.errno == errno.ECONNREFUSED:
            return Unavailable(
                f"nobody listens on {where}: the connection was refused", remedy="start the server again"
            )
        if error.errno in {errno.EACCES, errno.EPERM}:
            return Unauthorized(
                f"no permission to connect to {where}",
                remedy="run as the user that owns the socket, or as root",
            )
    elif error.errno == errno.ECONNREFUSED:
        return Unavailable(
            f"nobody listens on {where}: the connection was refused",
            remedy="start the server, or check host and port",
        )
    return Unavailable(
        f"cannot connect to {where}: {os.strerror(error.errno or 0)}", remedy="check the address"
    )


async def dial(address: Address, timeout: float) -> socket.socket:
    """Return a connected, non-blocking socket.

    Raises Unavailable at once when the address refuses or is not there, TimedOut after ``timeout`` seconds.
    """
    limit = asyncio.get_running_loop().time() + timeout
    try:
        async with asyncio.timeout_at(limit):
            return await (_dial_unix(address) if address.unix else _dial_tcp(address, limit))
    except TimeoutError:
        raise TimedOut(
            f"{address.url} did not take a connection within {timeout:g} s",
            remedy="check that the server is alive and reachable",
        ) from None


def is_awaited(address: Address) -> bool:
    """Say whether a socket is held, and for whom it is is to come: who listened last is dead.

    At once; False for tcp, where nobody can know.
    """
    if not address.unix:
        return False
    with socket.socket(socket.AF_UNIX, STREAM) as probe:
        try:
            with short(address.path, parent=False) as path:
                probe.connect(path)
        except OSError:
            return False
        return sockets.is_left(probe)


async def _dial_unix(address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, STREAM)
    pause = FIRST_PAUSE
    try:
        while True:
            try:
                with short(address.path, parent=False) as path:
                    sock.connect(path)
            except (
                BlockingIOError
            ):  # its backlog is full: unlike tcp, nothing was started that one could await
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return sock
    except OSError as error:
        sock.close()
        raise _unreachable(address, error) from error
    except BaseException:
        sock.close()
        raise


async def _dial_tcp(address: Address, limit: float) -> socket.socket:
    """Try the addresses of the host one after the other, each with its share of the time that is left."""
    loop = asyncio.get_running_loop()
    targets = await _resolve(address)
    last = OSError(errno.EADDRNOTAVAIL, "no address")
    for place, (family, target) in enumerate(targets):
        sock = socket.socket(family, STREAM)
        share = (limit - loop.time()) / (len(targets) - place)
        try:
            async with asyncio.timeout(share):
                await loop.sock_connect(sock, target)
        except TimeoutError:
            sock.close()
            if place == len(targets) - 1:
                raise
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise _unreachable(address, last) from last


async def _resolve(address: Address) -> list[tuple[int, tuple[str, int]]]:
    """Return families and addresses of a host; literals without asking anybody."""
    host = address.host or "localhost"
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, address.port))]
    try:
        found = await addresses_of(host)
    except OSError as error:
        raise Unavailable(
            f"the host of {address.url} has no address: {error.strerror}",
            remedy="check the name and the resolver",
        ) from error
    return [(family, (target, address.port)) for family, target in found]
