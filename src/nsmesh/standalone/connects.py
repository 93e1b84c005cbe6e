"""What was connected by ``nsm connect``, kept on disk: a mesh that is started again asks for it again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError, NotFound
from nsmesh.core.process import boot_id, start_ticks
from nsmesh.datapath import netns
from nsmesh.standalone.spaces import existing

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Connect:
    """One client that was connected by hand: its place, and the URLs of its wires in order.

    ``pid`` 0: the place is a namespace. ``ticks`` is the start of the process, ``identity`` device and inode
    of the namespace, ``boot`` the boot of this machine in which both were seen.
    """

    client: str
    netns: str
    pid: int
    node: str
    ticks: int
    identity: tuple[int, int]
    boot: str
    urls: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise NotFound or Invalid where the place is not there any more.

        A namespace with a name is the one of that name; all else must be the very same.
        """
        existing("" if self.pid else self.netns, self.pid)
        if self.pid and (self.boot, self.ticks) != (boot_id(), start_ticks(self.pid)):
            raise NotFound(f"process {self.pid} is another one now", remedy="connect again")
        anonymous = not self.netns.startswith(f"{netns.RUN_NETNS}/")
        if anonymous and (self.boot, tuple(self.identity)) != (boot_id(), netns.identity(self.netns)):
            raise NotFound(f"the network namespace {self.netns} is another one now", remedy="connect again")


class Connects:
    """Connected clients by name, written through to one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Connect] = {}
        try:
            for item in json.loads(path.read_text()):
                item["urls"], item["identity"] = tuple(item["urls"]), tuple(item["identity"])
                self._known[item["client"]] = Connect(**item)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("what was connected by hand cannot be read", file=str(path), error=str(error))

    def __iter__(self) -> Iterator[Connect]:
        return iter(list(self._known.values()))

    def put(self, client: str, place: str, pid: int, node: str, url: str) -> None:
        """Keep one more wire of a client, whose place is there."""
        known = self._known.get(client)
        if known is None:
            ticks = (start_ticks(pid) if pid else 0) or 0
            try:
                identity = netns.identity(place)
            except OSError:
                return  # it went away just now, and its wires with it
            known = Connect(client, place, pid, node, ticks, identity, boot_id())
        self._known[client] = replace(known, urls=(*known.urls, url))
        self._save()

    def drop(self, client: str, url: str = "") -> None:
        """Forget one wire of a client, or (without ``url``) all; what is not known is forgotten already."""
        known = self._known.pop(client, None)
        if known is None:
            return
        urls = list(known.urls)
        if url and url in urls:
            urls.remove(url)
        if url and urls:
            self._known[client] = replace(known, urls=tuple(urls))
        self._save()

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        try:
            with new.open("w") as file:
                json.dump([asdict(item) for item in self._known.values()], file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            # the wire is there and works; only a mesh that is started again would not know of it
            log.warning("what was connected cannot be kept", file=str(self._path), error=str(error))


def gone(connect: Connect, error: MeshError) -> str:
    """Return what is told of a client whose place is gone."""
    return f"client {connect.client} is not connected again: {error.what}"
