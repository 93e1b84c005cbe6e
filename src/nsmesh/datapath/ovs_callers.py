"""Memif endpoints that were away: the switch is their client, and connects once if nobody tells it to.

It is told to when somebody listens there again, and not before (see ``ovs_wear.py``).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath.memif.messages import SIZE
from nsmesh.datapath.ovs_database import Row, mapping, transact, unmapped
from nsmesh.datapath.ovs_memif import DEVICE, anew, socket_of
from nsmesh.datapath.ovs_ports import SwitchPorts

log = structlog.get_logger()

PAUSE = 1.0
"""Seconds between two looks."""
GREETING = 2.0
"""Seconds that a memif server may take to greet a client."""
SLOW = 7.0
"""Seconds after which a port that never was up is called again: the switch tells with up to 5 s delay."""


class Callers:
    """Looks after ports by which the switch is a memif client, and has those connect again that are down."""

    def __init__(self, ports: SwitchPorts, database: Path, now: Callable[[], float]) -> None:
        self._ports = ports
        self._database = database
        self._now = now
        self._since: dict[str, float] = {}
        """Since when a port has been down, by its name; 0 for one that was up: it is called at once."""

    async def look(self) -> None:
        """Look once. Raises what the database raises."""
        found = {row["name"]: row for row in await self._ports.calling()}
        self._since = {name: since for name, since in self._since.items() if name in found}
        for name, row in found.items():
            if row["link_state"] == "up":
                self._since[name] = 0.0
            elif not await _listens(socket_of(row)):
                self._since.setdefault(name, self._now())
            elif _failed(row) or self._now() - self._since.setdefault(name, self._now()) > SLOW:
                log.info("a memif endpoint is called again", port=name)
                await _call_again(self._database, row)
                self._since[name] = self._now()

    async def keep(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(PAUSE)
            try:
                await self.look()
            except MeshError as error:
                log.debug("memif endpoints cannot be looked after now", error=str(error))


async def _call_again(database: Path, row: Row) -> None:
    """Have the switch connect anew where it is a memif client: by itself it never does.

    A port that has been made anew since the row was read is left alone.
    """
    device = anew(unmapped(row["options"])[DEVICE])
    put = {
        "op": "update",
        "table": "Interface",
        "where": [["name", "==", row["name"]], ["options", "==", row["options"]]],
        "row": {"options": mapping({DEVICE: device})},
    }
    await transact(database, put)


async def _listens(path: str) -> bool:
    """Whether somebody listens at a socket: each call in vain costs the switch memory for good.

    It waits to be greeted: DPDK's server ends its own process where a client has gone before that.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(GREETING):
                await asyncio.get_running_loop().sock_recv(probe, SIZE)
    return True


def _failed(row: Row) -> bool:
    """Whether the switch has tried and given up."""
    return isinstance(row["ofport"], int) and row["ofport"] < 0
