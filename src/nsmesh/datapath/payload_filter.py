"""The filters that make a wire carry what its payload says: one small program on each of its ends.

``clsact`` and ``cls_bpf``, two messages that go along with those that configure the end. All wires of a
payload share one program, and all ends one map of counters, which has what was refused and nothing else.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import structlog

from nsmesh.core.metrics import ReadCounter
from nsmesh.datapath import bpf, netns
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Message, Netlink, attribute, attributes, request, u32
from nsmesh.datapath.payload_program import CLASSES, VALUE_SIZE, program
from nsmesh.datapath.places import Place
from nsmesh.datapath.veth import End
from nsmesh.model.messages import ETHERNET, IP

log = structlog.get_logger()

REFUSED = ReadCounter(
    "nsmesh_refused_frames",
    "Frames that a wire's payload does not allow, by the forwarder's connection id and what they were.",
    ("connection", "frame"),
)

RTM_NEWQDISC, RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 36, 44, 45, 46
NLM_F_CREATE = 0x400
NLA_F_NESTED = 0x8000
TCA_KIND, TCA_OPTIONS = 1, 2
TC_H_CLSACT, CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_TAG, TCA_BPF_ID = 6, 7, 8, 10, 11
TCA_BPF_FLAG_ACT_DIRECT = 1

_TCMSG = struct.Struct("=BxxxiIII")
_PLACE = 1 << 16 | 0x0300  # priority 1, ETH_P_ALL in network order
_HANDLE = 1
_MOST = 65536
"""Ends that may have counters at a time; those beyond refuse and do not count."""
_PREFIX = "nsm_"
"""How the names of our programs begin."""
_NONE = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})


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
    take away. A tunnel of bare packets carries IP by itself.
    """
    tunnel = wire.tunnel
    if wire.payload == ETHERNET or (tunnel is not None and not tunnel.frames):
        return NOTHING
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
            name = _PREFIX + payload.lower()
            descriptor = bpf.load(program(payload, self.map), name)
            options = u32(TCA_BPF_FD, descriptor) + attribute(TCA_BPF_NAME, name.encode() + b"\0")
            options += u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT)
            body = attribute(TCA_KIND, b"bpf\0") + attribute(TCA_OPTIONS | NLA_F_NESTED, options)
            loaded = self._loaded[payload] = Loaded(bpf.info_of(descriptor), body)
        return loaded

    def has(self, number: int) -> bool:
        """Whether a program is one of this process."""
        return any(loaded.info.id == number for loaded in self._loaded.values())


_CLSACT = attribute(TCA_KIND, b"clsact\0")


def new_place(index: int) -> Message:
    """Give an interface a place for filters; one that has it keeps it."""
    return request(RTM_NEWQDISC, NLM_F_CREATE, _TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0) + _CLSACT)


def new_filter(index: int, direction: int, body: bytes) -> Message:
    """Attach a program, in place of the one that is there."""
    return request(RTM_NEWTFILTER, NLM_F_CREATE, _TCMSG.pack(0, index, _HANDLE, direction, _PLACE) + body)


def del_filter(index: int, direction: int) -> Message:
    """Take our program away."""
    return request(RTM_DELTFILTER, 0, _TCMSG.pack(0, index, _HANDLE, direction, _PLACE))


class Standing(NamedTuple):
    """The program that is attached where ours belongs: its name, digest and id."""

    name: str
    tag: bytes
    id: int


def read_filter(netlink: Netlink, index: int, direction: int) -> Standing | None:
    """Return the program that is where ours belongs, or None; raises OSError."""
    message = request(RTM_GETTFILTER, 0, _TCMSG.pack(0, index, _HANDLE, direction, _PLACE))
    try:
        answers = netlink.ask(message)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    found = attributes(answers[0][1], _TCMSG.size) if answers else {}
    if found.get(TCA_KIND, b"").rstrip(b"\0") != b"bpf":
        return None
    options = attributes(found.get(TCA_OPTIONS, b""))
    name = options.get(TCA_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
    number = int.from_bytes(options.get(TCA_BPF_ID, b""), sys.byteorder)
    return Standing(name, options.get(TCA_BPF_TAG, b""), number)


class Filters:
    """The filters of one driver's wires, and what they have refused.

    Where the kernel has not what it takes, wires are made all the same and a warning says so, once.
    """

    def __init__(self) -> None:
        self._older: dict[tuple[str, int], int] = {}
        """Maps of an earlier process's programs, by namespace and index of the ends that still have them."""

    def begin(self, ends: Sequence[End], wanted: Filter) -> None:
        """Prepare all ends of a new wire but the first; raises OSError and MeshError.

        The kernel waits a moment between an interface's place for filters and its first filter. So the other
        end's place is made before the first end has its filter, and one wait does for both.
        """
        if not wanted.directions or lacks():
            return
        for end in ends[1:]:
            batch = Batch()
            batch.put(new_place(end.ifindex))
            for failure in end.place.netlink.send(batch):
                raise explain(failure.number, f"cannot prepare {wanted} on {end}", failure.text)

    def messages(self, index: int, wanted: Filter, *, first: bool = True) -> list[Message]:
        """Return the requests that give a new interface its filter; ``first``: it is not prepared yet."""
        if not wanted.directions or lacks():
            return []
        body = _programs().of(wanted.payload).body
        filters = [new_filter(index, direction, body) for direction in wanted.directions]
        return [new_place(index), *filters] if first else filters

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
                if standing is not None and standing.name.startswith(_PREFIX):
                    batch.put(del_filter(index, direction))
                    done["remove the filter of another payload"] = None
                continue
            loaded = _programs().of(wanted.payload)
            if standing is not None and standing.tag == loaded.info.tag:
                if not _programs().has(standing.id):
                    self._older[place.path, index] = _map_of(standing.id)
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


def counts_in(map_fd: int, index: int) -> Counter[str]:
    """Return what an interface has refused, by what it was; raises OSError."""
    value = bpf.lookup(map_fd, index, VALUE_SIZE)
    if value is None:
        return Counter()
    numbers = struct.unpack(f"={VALUE_SIZE // 8}Q", value)
    return Counter({name: number for name, number in zip(CLASSES, numbers, strict=False) if number})


def counts_at(netlink: Netlink, index: int) -> Counter[str]:
    """Return what the interface with an index has refused, whichever process has set its filter.

    ``netlink``: a socket of its namespace. Raises OSError.
    """
    standing = read_filter(netlink, index, INGRESS)
    if standing is None or not standing.name.startswith(_PREFIX):
        return Counter()
    return counts_in(_map_of(standing.id), index)


def as_values(refused: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, ...], float]:
    """Return what wires have refused as the metric :data:`REFUSED` has it."""
    return {(wire, kind): float(n) for wire, kinds in refused.items() for kind, n in kinds.items()}


@cache
def _programs() -> _Programs:
    return _Programs()


@cache
def _map_of(number: int) -> int:
    """Return a descriptor of the map in which a program counts, held to the end of this process."""
    return bpf.first_map_of(number)


@cache
def lacks() -> str:
    """Return why this kernel cannot enforce payloads, or nothing. Tried once, where nobody sees."""
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(_try()), name="filter")
    thread.start()
    thread.join()
    reason = reasons[0] if reasons else "trying it failed"
    if reason:
        log.warning("payloads are not enforced: a wire carries what its ends send", why=reason)
    return reason


def _try() -> str:
    """Attach a program in a namespace of the calling thread, which must end then."""
    try:
        netns.leave()
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
