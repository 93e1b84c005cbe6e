"""Hears of every interface that is set down or deleted, in any number of namespaces, through one socket.

The socket is in a namespace of its own. There each namespace that has an end of a wire gets an id, and a
socket that listens to all ids hears of it; an id keeps no namespace alive. A filter in the kernel drops all
but what tells of an end's end, so that living wires, and those that are made, cost nothing here.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterable

import structlog

from nsmesh.datapath import netns
from nsmesh.datapath.netlink import SOL_NETLINK, Batch, Netlink, frames, request, u32
from nsmesh.datapath.places import Place

log = structlog.get_logger()

NETLINK_LISTEN_ALL_NSID = 8
RTM_NEWNSID, RTM_GETNSID = 88, 90
NETNSA_NSID, NETNSA_FD = 1, 3
NETNSA_NSID_NOT_ASSIGNED = 0xFFFF_FFFF
RTMGRP_LINK = 1
_RECEIVE = 8192
_BUFFER = 8 << 20
"""Bytes that may wait: some ten thousand wires that end at one moment."""
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_RTGENMSG = bytes(4)
_IFINFO = struct.Struct("=BxHiII")
_NSID = struct.Struct("=i")
_LD_H, _LD_B, _LD_W = 0x28, 0x30, 0x20
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06
_FILTER = (
    (_LD_B, 0, 0, 16),  # the family: bridges tell of their ports in one of their own
    (_JEQ, 0, 8, 0),
    (_LD_H, 0, 0, 4),  # the type; loads are in network order, what is loaded is in the machine's
    (_JEQ, 5, 0, socket.htons(17)),  # RTM_DELLINK
    (_JEQ, 0, 5, socket.htons(16)),  # RTM_NEWLINK
    (_LD_W, 0, 0, 24),  # its flags: still up?
    (_JSET, 3, 0, socket.htonl(1)),
    (_LD_W, 0, 0, 28),  # what changed: all of it in an interface that is just made
    (_JEQ, 1, 0, 0xFFFF_FFFF),
    (_RET, 0, 0, 0xFFFF),
    (_RET, 0, 0, 0),
)

Key = tuple[int, int]
"""A namespace's id and an interface index in it."""


class EndWatch:
    """``tell`` is called, in the event loop, with the id of a wire that is to be looked at.

    Where the kernel lets no such socket be opened nothing is told, and a warning says so once.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._socket: socket.socket | None = None
        self._requests: Netlink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ids: dict[int, int] = {}
        self._wires: dict[Key, str] = {}
        self._keys: dict[str, list[Key]] = {}
        self._cookies: dict[str, list[int]] = {}

    def __len__(self) -> int:
        """Return how many interfaces are watched."""
        return len(self._wires)

    def open(self) -> None:
        """Begin to listen, in the running loop."""
        opened: list[socket.socket | Netlink] = []

        def work() -> None:
            try:
                netns.leave()
                opened.append(_listening())
                opened.append(Netlink())
            except OSError as error:
                log.warning("interfaces that vanish are not heard of", error=str(error))

        thread = threading.Thread(target=work, name="end watch")
        thread.start()
        thread.join()
        if len(opened) < 2:
            for one in opened:
                one.close()
            return
        events, requests = opened
        assert isinstance(events, socket.socket)
        assert isinstance(requests, Netlink)
        self._socket, self._requests = events, requests
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(events, self._drain)

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._requests is not None:
            self._requests.close()
            self._requests = None

    def add(self, wire_id: str, ends: Iterable[tuple[Place, int]]) -> None:
        """Watch the interfaces (opened namespace, index) of a wire, instead of those known of it."""
        self.forget(wire_id)
        ends = list(ends)
        self._cookies[wire_id] = [place.cookie for place, _ in ends]
        if self._requests is None:
            return
        keys = [(self._id_of(place, self._requests), index) for place, index in ends]
        self._keys[wire_id] = keys
        self._wires.update(dict.fromkeys(keys, wire_id))

    def cookies(self, wire_id: str) -> list[int]:
        """Return the cookies of the namespaces that a wire's ends are in."""
        return self._cookies.get(wire_id, [])

    def forget(self, wire_id: str) -> None:
        """Watch a wire no more."""
        self._cookies.pop(wire_id, None)
        for key in self._keys.pop(wire_id, ()):
            if self._wires.get(key) == wire_id:
                del self._wires[key]

    def _id_of(self, place: Place, requests: Netlink) -> int:
        """Return the id of a namespace here; -1 where the kernel gives none."""
        known = self._ids.get(place.cookie)
        if known is not None:
            return known
        batch = Batch()
        wish = u32(NETNSA_NSID, NETNSA_NSID_NOT_ASSIGNED) + u32(NETNSA_FD, place.descriptor)
        batch.put(request(RTM_NEWNSID, 0, _RTGENMSG + wish))
        requests.send(batch)  # one that has an id already is refused, and answers the question below
        found = requests.ask(request(RTM_GETNSID, 0, _RTGENMSG + u32(NETNSA_FD, place.descriptor)))
        number: int = _NSID.unpack_from(found[0][1], 8)[0] if found else -1
        if len(self._ids) >= 4 * len(self._wires) + 1024:
            self._ids.clear()
        self._ids[place.cookie] = number
        return number

    def _drain(self) -> None:
        hints: dict[str, None] = {}
        while self._socket is not None:
            try:
                data, control, _, _ = self._socket.recvmsg(_RECEIVE, 64)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                hints.update(dict.fromkeys(self._keys))  # messages were lost: look at all
                continue
            space = next((_NSID.unpack(item[2])[0] for item in control if item[0] == SOL_NETLINK), -1)
            for _, _, _, start, _ in frames(data):
                wire_id = self._wires.get((space, _IFINFO.unpack_from(data, start)[2]))
                if wire_id is not None:
                    hints[wire_id] = None
        for wire_id in hints:
            self._tell(wire_id)


def _listening() -> socket.socket:
    """Return a socket in the calling thread's namespace that hears of all that have an id there."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    events = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        program = b"".join(struct.pack("=HBBI", *line) for line in _FILTER)
        held = ctypes.create_string_buffer(program)
        events.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_FILTER), ctypes.addressof(held))
        )
        events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        events.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
        events.bind((0, RTMGRP_LINK))
    except BaseException:
        events.close()
        raise
    return events
