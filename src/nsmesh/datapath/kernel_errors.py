"""Error numbers of the kernel as errors that a person understands."""

from __future__ import annotations

import errno
import os

from nsmesh.core.errors import (
    Conflict,
    Exhausted,
    Internal,
    Invalid,
    MeshError,
    NotFound,
    Unauthorized,
    Unimplemented,
)

_PRIVILEGE = (Unauthorized, "run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN")
_ABSENT = (NotFound, "the interface or its namespace went away meanwhile: ask again")
_TAKEN = (Conflict, "remove what is in the way, or choose another name or address")
_PORT_TAKEN = (Conflict, "another program has that UDP port of the node: set NSM_VXLAN_PORT to a free one")
_EXHAUSTED = (Exhausted, "free memory or descriptors, or raise the limit")
_LACKING = (Unimplemented, "load the kernel module for it (veth, vxlan, ipv6) or use another kernel")
_INVALID = (Invalid, "correct the connection's context (addresses, routes, MTU)")

_BY_NUMBER: dict[int, tuple[type[MeshError], str]] = {
    errno.EPERM: _PRIVILEGE,
    errno.EACCES: _PRIVILEGE,
    errno.ENODEV: _ABSENT,
    errno.ENOENT: _ABSENT,
    errno.ESRCH: _ABSENT,
    errno.ENXIO: _ABSENT,
    errno.EEXIST: _TAKEN,
    errno.EBUSY: _TAKEN,
    errno.EADDRINUSE: _PORT_TAKEN,
    errno.ENOMEM: _EXHAUSTED,
    errno.ENOBUFS: _EXHAUSTED,
    errno.EMFILE: _EXHAUSTED,
    errno.ENFILE: _EXHAUSTED,
    errno.ENOSPC: _EXHAUSTED,
    errno.EMSGSIZE: _EXHAUSTED,
    errno.EOPNOTSUPP: _LACKING,
    errno.ENOSYS: _LACKING,
    errno.ENOPROTOOPT: _LACKING,
    errno.EINVAL: _INVALID,
    errno.ERANGE: _INVALID,
    errno.EADDRNOTAVAIL: _INVALID,
    errno.ENETUNREACH: _INVALID,
    errno.EHOSTUNREACH: _INVALID,
    errno.EAFNOSUPPORT: _INVALID,
    errno.ENOTCONN: _INVALID,
    errno.ENETDOWN: _INVALID,
}


def explain(number: int, what: str, text: str = "") -> MeshError:
    """Return the error for a refusal: ``what`` was tried, ``text`` is the kernel's own explanation."""
    said = f"{what}: {os.strerror(number)}" + (f" ({text})" if text else "")
    error, remedy = _BY_NUMBER.get(number, (Internal, "look into the log of this component"))
    return error(said, remedy=remedy)
