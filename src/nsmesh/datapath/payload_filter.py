"""The filters that make a wire carry what its payload says: one small program on each of its ends.

``clsact`` and ``cls_bpf``, two messages that go along with those that configure the end. All wires of a
payload share one program, and all ends one map of counters, which has what was refused and nothing else.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import structlog

from nsmesh.core.errors import Invalid
from nsmesh.datapath import bpf, netns
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Message, Netlink
from nsmesh.datapath.payload_counts import counts_in, map_of
from nsmesh.datapath.payload_messages import PREFIX, del_filter, new_filter, read_filter
from nsmesh.datapath.payload_program import VALUE_SIZE, program
from nsmesh.datapath.places import Place
from nsmesh.datapath.traffic_control import EGRESS, INGRESS, new_place, program_options
from nsmesh.model.messages import ETHERNET, IP, PAYLOADS

log = structlog.get_logger()

_MOST = 65536
"""Ends that may have counters at a time; those beyond refuse and do not count."""


class Filter(NamedTuple):
    """What an end has: the payload that passes, and where; no directions where everything passes."""

    payload: str
    directions: tuple[int, ...]

    def __str__(self) -> str:
        return f"the filter of payload {self.payload}"


NOTHING = Filter(ETHERNET, ())


def filter_of(wire: CrossConnect) -> Filter:
    """Return the filter of each end of a wire.

    What goes out is looked at, so that the sender is told, and what comes in, which only who has that end can
    take away. A tunnel of bare packets carries IP by itself. Raises Invalid for a payload that is none.
    """
    tunnel = wire.tunnel
    if wire.payload == ETHERNET or (tunnel is not None and not tunnel.frames):
        return NOTHING
    if wire.payload not in PAYLOADS:
        raise Invalid(
            f"connection {wire.id} has payload {wire.payload!r}, and no wire here carries that",
            remedy=f"there are {', '.join(PAYLOADS)}",
        )
    return Filter(wire.payload, (INGRESS, EGRESS))


class Loaded(NamedTuple):
    """A program in the kernel: what it is there, and the attributes of a request that attaches it."""

    info: bpf.Info
    body: bytes


class _Programs:
    """The programs of this process, loaded when they are first needed, and their map. Held to its end."""

    def __init__(self) -> None:
        self.map = bpf.new_hash("nsm_refused", VALUE_SIZE, _MOST)
        self._loaded: dict[str, Loaded] = {}

    def of(self, payload: str) -> Loaded:
        """Return the program of a payload other than ETHERNET; raises OSError."""
        loaded = self._loaded.get(payload)
        if loaded is None:
            name = PREFIX + payload.lower()
            descriptor = bpf.load(program(payload, self.map), name)
            loaded = self._loaded[payload] = Loaded(
                bpf.info_of(descriptor), program_options(descriptor, name)
            )
        return loaded

    def has(self, number: int) -> bool:
        """Whether a program is one of this process."""
        return any(loaded.info.id == number for loaded in self._loaded.values())


class Filters:
    """The filters of one driver's wires, and what they have refused.

    Where the kernel has not what it takes, wires are made all the same and a warning says so, once.
    """

    def __init__(self) -> None:
        self._older: dict[tuple[str, int], int] = {}
        """Maps of an earlier process's programs, by namespace and index of the ends that still have them."""

    def messages(self, index: int, wanted: Filter) -> tuple[Sequence[Message], Sequence[Message]]:
        """Return the requests that make a place for a new interface's filter, and those that fill it.

        The kernel waits a moment between the two: all places that are made in between share one wait.
        """
        if not wanted.directions or lacks():
            return (), ()
        body = _programs().of(wanted.payload).body
        return [new_place(index)], [new_filter(index, direction, body) for direction in wanted.directions]

    def converge(self, place: Place, index: int, wanted: Filter) -> list[str]:
        """Give an interface that stands the filter that it shall have; return what was done.

        Raises OSError and MeshError.
        """
        if lacks():
            return []
        batch, done = Batch(), dict[str, None]()
        self._older.pop((place.path, index), None)
        for direction in (INGRESS, EGRESS):
            standing = read_filter(place.netlink, index, direction)
            if direction not in wanted.directions:
                if standing is not None and standing.name.startswith(PREFIX):
                    batch.put(del_filter(index, direction))
                    done["remove the filter of another payload"] = None
                continue
            loaded = _programs().of(wanted.payload)
            if standing is not None and standing.tag == loaded.info.tag:
                if not _programs().has(standing.id):
                    self._older[place.path, index] = map_of(standing.id)
                continue
            batch.put(new_place(index))
            batch.put(new_filter(index, direction, loaded.body))
            done[f"set {wanted}"] = None
        for failure in place.netlink.send(batch):
            raise explain(failure.number, f"cannot set {wanted} in {place.path}", failure.text)
        return list(done)

    def counted(self, ends: Iterable[tuple[str, int]]) -> Counter[str]:
        """Return what the ends of a wire (namespace and index) have refused, by what it was."""
        total: Counter[str] = Counter()
        if lacks():
            return total
        for end in ends:
            total += counts_in(self._older.get(end, _programs().map), end[1])
        return total

    def forget(self, ends: Iterable[tuple[str, int]]) -> None:
        """Drop the counters of ends that are gone."""
        if lacks():
            return
        for end in ends:
            bpf.forget(self._older.pop(end, _programs().map), end[1])


@cache
def _programs() -> _Programs:
    return _Programs()


@cache
def lacks() -> str:
    """Return why this kernel cannot enforce payloads, or nothing. Tried once, where nobody sees."""
    reason = netns.tried_apart(tried)
    if reason:
        log.warning("payloads are not enforced: a wire carries what its ends send", why=reason)
    return reason


def tried() -> str:
    """Return why the namespace of the calling thread, a new one, cannot have filters, or nothing."""
    try:
        body = _programs().of(IP).body
        with Netlink() as netlink:
            for message, what in ((new_place(1), "sch_clsact"), (new_filter(1, INGRESS, body), "cls_bpf")):
                batch = Batch()
                batch.put(message)
                for failure in netlink.send(batch):
                    return f"{what}: {failure.text or os.strerror(failure.number)}"
    except OSError as error:
        return f"bpf: {error}"
    return ""
