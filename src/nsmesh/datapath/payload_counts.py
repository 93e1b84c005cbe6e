"""What filters of payloads have refused: read from their counters, by whoever it is that has set them."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.core.metrics import ReadCounter
from nsmesh.datapath import bpf, netns
from nsmesh.datapath.netlink import Netlink
from nsmesh.datapath.payload_messages import PREFIX, read_filter
from nsmesh.datapath.payload_program import CLASSES, VALUE_SIZE
from nsmesh.datapath.rtread import read_links
from nsmesh.datapath.traffic_control import INGRESS

log = structlog.get_logger()

REFUSED = ReadCounter(
    "nsmesh_refused_frames",
    "Frames that a wire's payload does not allow, by the forwarder's connection id and what they were.",
    ("connection", "frame"),
)


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
    if standing is None or not standing.name.startswith(PREFIX):
        return Counter()
    return counts_in(map_of(standing.id), index)


def refused_at(locations: Iterable[str], wires: Collection[str]) -> Counter[str]:
    """Return what the ends of some wires (ids) have refused, of those that are in these namespaces.

    Whoever made them; namespaces that cannot be entered have none.
    """
    total: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    for location in locations:
        try:
            identity = netns.identity(location)
            if identity not in seen:
                seen.add(identity)
                total += netns.call_in(location, lambda: _refused_here(wires))
        except (MeshError, OSError) as error:
            log.debug("counters not read", netns=location, error=str(error))
    return total


def _refused_here(wires: Collection[str]) -> Counter[str]:
    total: Counter[str] = Counter()
    with Netlink() as netlink:
        for link in read_links(netlink):
            if link.owner in wires:
                total += counts_at(netlink, link.index)
    return total


@contextmanager
def told(refused: Callable[[], Mapping[str, Mapping[str, int]]]) -> Iterator[None]:
    """Have :data:`REFUSED` tell, while the block runs, what wires have refused: counts by kind, by wire."""
    with REFUSED.reading(lambda: _samples(refused())):
        yield


@contextmanager
def told_later(refused: Callable[[], Awaitable[Mapping[str, Mapping[str, int]]]]) -> Iterator[None]:
    """Do as :func:`told`, where it has to be asked for."""

    async def read() -> dict[tuple[str, ...], float]:
        return _samples(await refused())

    with REFUSED.reading(read):
        yield


def _samples(refused: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, ...], float]:
    return {(wire, kind): float(n) for wire, kinds in refused.items() for kind, n in kinds.items()}


@cache
def map_of(number: int) -> int:
    """Return a descriptor of the map in which a program counts, held to the end of this process."""
    return bpf.first_map_of(number)
