"""Watch the interfaces of a network namespace: what is there now, and each change.

The socket keeps its namespace alive while it is open, so this is for a process that lives in the namespace
itself (a transparent network function), not for looking into the namespaces of others.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from nsmesh.core.errors import MeshError
from nsmesh.datapath import netns
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Batch, Netlink, frames
from nsmesh.datapath.rtnetlink import RTM_DELLINK, RTM_NEWLINK, set_up
from nsmesh.datapath.rtread import Link, parse_link, read_links

RTMGRP_LINK = 1
_RECEIVE = 65536


@dataclass(frozen=True, slots=True)
class LinkChange:
    """An interface that appeared or changed, or (``gone``) disappeared."""

    link: Link
    gone: bool = False


def silence(location: str) -> None:
    """Set all interfaces of the namespace at a path down, so that nothing in it answers any more."""
    with suppress(OSError, MeshError), netns.call_in(location, Netlink) as netlink:
        batch = Batch()
        for link in read_links(netlink):
            batch.put(set_up(link.index, up=False))
        netlink.send(batch)


class LinkWatch:
    """The interfaces of a namespace (by default the caller's), kept up to date by the kernel's own messages.

    Use: ``async with LinkWatch() as watch:``, look into :attr:`links`, then ``async for change in watch``.
    A link that is renamed disappears under its old name and appears under the new one. Only what differs is
    told: a message of the kernel that changes none of a link's values is dropped.
    """

    def __init__(self, location: str = "") -> None:
        self._location = location
        self._links: dict[int, Link] = {}
        self._changes: deque[LinkChange] = deque()
        self._news = asyncio.Event()
        self._events: socket.socket | None = None
        self._requests: Netlink | None = None

    @property
    def links(self) -> Mapping[str, Link]:
        """All interfaces as they now are, by name."""
        return MappingProxyType({link.name: link for link in self._links.values()})

    async def __aenter__(self) -> Self:
        """Start; raises MeshError where the namespace cannot be entered."""
        if self._location:
            netns.call_in(self._location, self._open)
        else:
            self._open()
        assert self._events is not None
        asyncio.get_running_loop().add_reader(self._events, self._drain)
        try:
            self._compare()
        except BaseException:
            await self.__aexit__()
            raise
        self._changes.clear()  # what is there at the start is no change
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events)
            self._events.close()
        if self._requests is not None:
            self._requests.close()
        self._news.set()
        self._events = self._requests = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LinkChange:
        """Wait for the next change; ends when the watch is left."""
        while not self._changes:
            if self._events is None:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._changes.popleft()

    async def appears(self, name: str) -> Link:
        """Wait until an interface called ``name`` is there, and return it; earlier changes are used up."""
        while name not in self.links:
            await anext(self)
        return self.links[name]

    async def disappears(self, name: str) -> None:
        """Wait until no interface is called ``name``; earlier changes are used up."""
        while name in self.links:
            await anext(self)

    def _open(self) -> None:
        try:
            self._events = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                socket.NETLINK_ROUTE,
            )
            self._events.bind((0, RTMGRP_LINK))
            self._requests = Netlink()
        except OSError as error:
            if self._events is not None:
                self._events.close()
            raise explain(error.errno or 0, "cannot watch interfaces") from error

    def _drain(self) -> None:
        assert self._events is not None
        while True:
            try:
                data = self._events.recv(_RECEIVE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._compare()  # messages were lost: look for ourselves
                continue
            for kind, _, _, start, end in frames(data):
                # Bridges send messages of their own family about their ports; those are no links.
                if kind in {RTM_NEWLINK, RTM_DELLINK} and data[start] == socket.AF_UNSPEC:
                    self._note(parse_link(data[start:end]), gone=kind == RTM_DELLINK)

    def _compare(self) -> None:
        assert self._requests is not None
        try:
            present = {link.index: link for link in read_links(self._requests)}
        except OSError as error:
            raise explain(error.errno or 0, "cannot read the interfaces") from error
        for index, link in tuple(self._links.items()):
            if index not in present:
                self._note(link, gone=True)
        for link in present.values():
            self._note(link, gone=False)

    def _note(self, link: Link, *, gone: bool) -> None:
        known = self._links.get(link.index)
        if gone:
            if self._links.pop(link.index, None) is None:
                return
        elif known == link:
            return
        else:
            if known is not None and known.name != link.name:
                self._changes.append(LinkChange(known, gone=True))
            self._links[link.index] = link
        self._changes.append(LinkChange(link, gone))
        self._news.set()
