"""Why a connection ended, in one sentence for people. ``where`` names its other side."""

from __future__ import annotations

import errno

from nsmesh.core.errors import MeshError, Unanswered, Unauthorized, Unavailable

_GONE = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


def closed(where: str) -> MeshError:
    """Return why: the other side closed it."""
    return Unanswered(f"{where} closed the connection", remedy="try again, and read its log")


def closed_here(where: str) -> MeshError:
    """Return why: this side closed it."""
    return Unanswered(f"the connection to {where} was closed", remedy="connect again")


def broken(where: str, error: OSError) -> MeshError:
    """Return why: the socket failed with ``error``."""
    if error.errno in _GONE:
        return Unanswered(f"{where} broke the connection", remedy="try again, and read its log")
    return Unanswered(f"the connection to {where} failed: {error.strerror}", remedy="try again")


def too_slow(where: str, limit: float) -> MeshError:
    """Return why: the handshake took longer than ``limit`` seconds."""
    return Unavailable(
        f"{where} did not finish its handshake within {limit:g} s",
        remedy="check that it is a gRPC peer, and whether both sides use TLS",
    )


def stalled(where: str, limit: float, waiting: int) -> MeshError:
    """Return why: for ``limit`` seconds none of the ``waiting`` bytes were read."""
    return Unavailable(
        f"{where} has read nothing for {limit:g} s, and {waiting} bytes wait", remedy="see whether it hangs"
    )


def strange_descriptor(where: str) -> MeshError:
    """Return why: it sent a descriptor that could make us wait for somebody."""
    return Unauthorized(
        f"{where} sent a descriptor that is neither a path's nor a network namespace's",
        remedy="open with O_PATH what is to be passed on",
    )
