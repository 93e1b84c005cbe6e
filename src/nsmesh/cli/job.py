"""What a forked process becomes: one that runs ``nsm``, with nothing left of whom it was forked off."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsmesh.rpc import inherited
from nsmesh.standalone.processes import NSM

_PR_SET_NAME = 15


@dataclass(frozen=True, slots=True)
class Job:
    """What a forked process does: ``nsm`` with ``arguments``. ``listen``: sockets that are passed to it."""

    arguments: Sequence[str]
    name: str
    title: str
    environment: Mapping[str, str]
    listen: Sequence[int]

    def run(self) -> None:
        """Do it; raises SystemExit at its end."""
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv = ["nsm", *self.arguments]
        sys.orig_argv = [sys.executable, *NSM, *self.arguments]
        set_title(self.name, self.title)
        from nsmesh.cli.main import main  # noqa: PLC0415 - who forks can do without

        inherited.take(self.listen)
        main(list(self.arguments))


def become(wish: Mapping[str, Any], descriptors: Sequence[int], keep: Collection[int] = ()) -> Job:
    """Leave everything of the fork server behind, but for ``keep``, and return what is to be done.

    ``descriptors``: for what is said, the network namespace where there is one, sockets to listen on. Raises
    OSError.
    """
    log, space, *listen = descriptors if wish["netns"] else [descriptors[0], -1, *descriptors[1:]]
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    if space >= 0:
        from nsmesh.datapath import netns  # noqa: PLC0415 - loaded already

        netns.enter(space)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers are what is wanted
        fd = int(name)
        if fd > 2 and fd not in listen and fd not in keep:
            with contextlib.suppress(OSError):  # the one that lists the folder
                os.close(fd)
    os.chdir(str(wish["directory"]) or "/")
    return Job(wish["arguments"], wish["name"], wish["title"], wish["environment"], listen)


def set_title(name: str, title: str) -> None:
    """Show ``title`` as our command line, cut to the room that the real one had, and ``name`` as our name."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc(5) 48 and 49
    room = end - begin
    if room <= 1:
        return
    words = title.encode().replace(b" ", b"\0")[: room - 1]
    ctypes.memmove(begin, words.ljust(room, b"\0"), room)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"nsm:{name}".encode(), 0, 0, 0)  # the kernel cuts it to 15 bytes
