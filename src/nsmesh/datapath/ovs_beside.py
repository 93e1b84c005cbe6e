"""A switch beside the first one of its node, in a folder and a namespace that come and go with it."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from nsmesh.core.errors import Conflict
from nsmesh.datapath import netns
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_switch import Switch


def space_of(directory: Path, node: str, number: int) -> str:
    """Return the path of the namespace of a node's second switch, or third..., from the first one's.

    ``directory`` and ``node``: the first switch's folder and the path of its namespace.
    """
    base = node
    if Path(node).parent != Path(netns.RUN_NETNS):
        base = f"{netns.RUN_NETNS}/nsm-ovs-{hashlib.sha256(str(directory).encode()).hexdigest()[:10]}"
    return f"{base}-{number}"


class Beside(OwnSwitch):
    """The second switch of a node, or the third..., by ``number``: with no ports in advance yet."""

    def __init__(self, first: Switch, number: int) -> None:
        space = space_of(first.directory, first.node, number)
        super().__init__(
            first.directory / str(number),
            space,
            first.bridge,
            first.memory,
            spares=first.spares.size,
            ends=f"{space}-ends",
            listening=first.sockets.listening,
            core=_core(number),
        )
        self.spares.limit = 0

    async def ensure(self) -> None:
        """See :meth:`OwnSwitch.ensure`."""
        if not Path(self.node).exists():
            with suppress(Conflict):
                netns.create(Path(self.node).name)
        await super().ensure()

    async def stop(self) -> None:
        """See :meth:`OwnSwitch.stop`."""
        await self.ports.close()
        await super().stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        netns.delete(Path(self.node).name)


def _core(number: int) -> int | None:
    """Return on which processor a switch polls: all would choose the same one, which was the last so far."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-number % len(cores)] if len(cores) > 1 else None
