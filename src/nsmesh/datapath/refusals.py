"""What it means that the kernel refuses a request about an interface's end. Pure."""

from __future__ import annotations

import errno

from nsmesh.core.errors import MeshError, Refused
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Failure
from nsmesh.datapath.packed import Prefix
from nsmesh.datapath.plan import Add, Remove, Set
from nsmesh.datapath.wirestate import NeighbourState, RouteState, RuleState

GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO})
"""What the kernel says of something that is not there."""


def _meant(about: object) -> object:
    """Return the operation that a request was about: in a new end's configuration an item is to be added."""
    return Add(about) if isinstance(about, Prefix | RouteState | NeighbourState | RuleState) else about


def is_harmless(failure: Failure) -> bool:
    """Whether the state that an operation wanted is there all the same."""
    match _meant(failure.about):
        case Remove():
            return failure.number in GONE
        case Add(RouteState() | RuleState()):
            return failure.number == errno.EEXIST
    return False


def refusal(failure: Failure, end: str) -> MeshError:
    """Return the error for a refused request about ``end``, in the words of what was to be done there."""
    match operation := _meant(failure.about):
        case Add(Prefix() as prefix) if len(prefix.address) == 16 and failure.number == errno.EACCES:
            return Refused(
                f"cannot {operation} on {end}: IPv6 is switched off there",
                remedy="set net.ipv6.conf.all.disable_ipv6 to 0 in that namespace, or use IPv4",
            )
        case Add() | Remove() | Set():
            what = f"cannot {operation} on {end}"
        case _:
            what = f"cannot set {operation} on {end}"
    return explain(failure.number, what, failure.text)
