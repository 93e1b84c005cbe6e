"""The tree of errors, and the one table that maps it to gRPC status codes.

An element raises one of these; the edge (``rpc``) puts code and text on the wire; the user reads one
sentence with what happened, where, and what to do.
"""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """gRPC status codes, with their wire numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


REFUSALS = frozenset(
    (
        Status.UNKNOWN,
        Status.INVALID_ARGUMENT,
        Status.NOT_FOUND,
        Status.ALREADY_EXISTS,
        Status.PERMISSION_DENIED,
        Status.RESOURCE_EXHAUSTED,
        Status.FAILED_PRECONDITION,
        Status.UNIMPLEMENTED,
        Status.UNAUTHENTICATED,
    )
)
"""Answers by which a peer shows that it is alive and has refused."""


class MeshError(Exception):
    """Base of all errors that a caller may see.

    ``what`` is one sentence: what happened and to whom. ``remedy`` says what to do, and may be empty.
    """

    status = Status.UNKNOWN

    def __init__(self, what: str, *, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the sentence, with the remedy behind a dash where there is one."""
        return f"{self.what} - {self.remedy}" if self.remedy else self.what


class Invalid(MeshError):
    """The caller's message cannot be understood or breaks a rule."""

    status = Status.INVALID_ARGUMENT


class NotFound(MeshError):
    """A service, endpoint, connection or file is not there."""

    status = Status.NOT_FOUND


class Conflict(MeshError):
    """A name, address or interface is taken by somebody else."""

    status = Status.ALREADY_EXISTS


class Unauthorized(MeshError):
    """A policy refused; the text names the rule, the hop and the identities."""

    status = Status.PERMISSION_DENIED


class Outdated(Unauthorized):
    """What a peer signed does not fit the certificate that its connection showed: it may have rotated since.

    On a new connection it shows the one of today.
    """


class Refused(MeshError):
    """A peer or an endpoint said no for a reason of its own."""

    status = Status.FAILED_PRECONDITION


class Exhausted(MeshError):
    """A pool (addresses, memory, streams) has nothing left."""

    status = Status.RESOURCE_EXHAUSTED


class Unavailable(MeshError):
    """A neighbour cannot be reached, now."""

    status = Status.UNAVAILABLE


class Unreachable(Unavailable):
    """Nobody answers a dial at ``target``, a URL: nothing has reached anybody there."""

    def __init__(self, target: str, what: str, *, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.target = target


class Unanswered(Unavailable):
    """The connection ended before the answer came: the peer may have acted, or not have looked.

    What may be said twice can be said again, on a new connection.
    """


class TimedOut(MeshError):
    """The deadline passed."""

    status = Status.DEADLINE_EXCEEDED


class Unimplemented(MeshError):
    """The verb or method is not served here."""

    status = Status.UNIMPLEMENTED


class Internal(MeshError):
    """A fault of our own; the log has the traceback."""

    status = Status.INTERNAL


class Remote(MeshError):
    """What a peer answered with a status that has no class of its own here."""

    def __init__(self, status: Status, what: str, *, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.status = status


_BY_STATUS: dict[Status, type[MeshError]] = {
    cls.status: cls
    for cls in (
        Invalid,
        NotFound,
        Conflict,
        Unauthorized,
        Refused,
        Exhausted,
        Unavailable,
        TimedOut,
        Unimplemented,
        Internal,
    )
}


def from_status(code: int, text: str) -> MeshError:
    """Return the error that a peer's gRPC status stands for; an unknown code becomes UNKNOWN."""
    try:
        status = Status(code)
    except ValueError:
        status = Status.UNKNOWN
    what, _, remedy = text.partition(" - ")
    cls = _BY_STATUS.get(status)
    return cls(what, remedy=remedy) if cls else Remote(status, what, remedy=remedy)
