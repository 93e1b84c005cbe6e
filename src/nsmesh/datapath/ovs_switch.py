"""A switch of our own: ``ovsdb-server`` and ``ovs-vswitchd`` with a private run directory, and its ports.

Both are daemons that outlive whoever started them: the next one finds them by their pid files and goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from nsmesh.core.errors import NotFound, Unavailable
from nsmesh.datapath import ovs_database as database
from nsmesh.datapath import ovs_openflow as openflow
from nsmesh.datapath.ovs_database import mapping, members, transact, unmapped
from nsmesh.datapath.ovs_programs import running

SCHEMA_FILE = "/usr/share/openvswitch/vswitch.ovsschema"
BRIDGE = "br-nsm"
OWNER, INDEX = "nsm-connection", "nsm-ifindex"
PROGRAMS = ("ovs-vswitchd", "ovsdb-server")
_LEAVING = 5.0
"""Seconds within which ``ovs-vswitchd`` must have taken its devices away."""
_TURN_UP = 5000
"""Milliseconds within which the switch must take up a port."""


class Switch:
    """One bridge, ``datapath_type=netdev``; its daemons live in ``directory`` and the namespace ``node``.

    A namespace can have one such switch: its device ``ovs-netdev`` has the same name in all of them.
    """

    def __init__(self, directory: Path, node: str = "", bridge: str = BRIDGE) -> None:
        self.directory = directory
        self.bridge = bridge
        self.database = directory / "db.sock"
        self.flows = directory / f"{bridge}.mgmt"
        self._node = node
        self._starting = asyncio.Lock()

    async def ensure(self) -> None:
        """Start what does not run; a new ``ovs-vswitchd`` gets the flows of all wires that have ports.

        Raises NotFound without Open vSwitch, Unavailable where it fails.
        """
        async with self._starting:
            server = running(self.directory / "ovsdb-server.pid", "ovsdb-server")
            if not server:
                await self._start_database()
            started = not running(self.directory / "ovs-vswitchd.pid", "ovs-vswitchd")
            if started:
                await self._start_switch()
            elif server and self.flows.exists():
                return
            await self._make_bridge()
            if started:
                await self._connect_again()

    async def _connect_again(self) -> None:
        """Give a new ``ovs-vswitchd`` the flows of all wires: ports are in the database, flows are not."""
        count = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        counted = await transact(self.database, count, _select("Open_vSwitch", ["next_cfg"]))
        taken_up = {
            "op": "wait",
            "table": "Open_vSwitch",
            "where": [],
            "columns": ["cur_cfg"],
            "until": "==",
            "rows": [{"cur_cfg": counted[1]["rows"][0]["next_cfg"]}],
            "timeout": _TURN_UP,
        }
        wanted = _select("Interface", ["ofport", "external_ids"])
        rows = (await transact(self.database, taken_up, wanted))[1]["rows"]
        numbers: dict[str, list[int]] = {}
        for row in rows:
            owner = unmapped(row["external_ids"]).get(OWNER)
            if owner and isinstance(row["ofport"], int) and row["ofport"] > 0:
                numbers.setdefault(owner, []).append(row["ofport"])
        whole = {owner: ports for owner, ports in numbers.items() if len(ports) == 2}
        flows = [flow for owner, (one, other) in whole.items() for flow in _both_ways(owner, one, other)]
        await openflow.send(self.flows, flows)

    async def _start_database(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "conf.db"
        if not file.exists():
            await self._run("ovsdb-tool", "create", str(file), SCHEMA_FILE)
        await self._daemon("ovsdb-server", str(file), f"--remote=punix:{self.database}")
        root = await transact(self.database, _select("Open_vSwitch", []))
        if not root[0]["rows"]:
            await transact(self.database, {"op": "insert", "table": "Open_vSwitch", "row": {}})

    async def _start_switch(self) -> None:
        await self._daemon("ovs-vswitchd", f"unix:{self.database}", "--no-chdir")

    async def _daemon(self, program: str, *arguments: str) -> None:
        there = self.directory
        await self._run(
            program,
            *arguments,
            f"--pidfile={there / program}.pid",
            f"--log-file={there / program}.log",
            f"--unixctl={there / program}.ctl",
            "-vconsole:off",
            "--detach",
        )

    async def _run(self, *command: str) -> None:
        inside = ("nsenter", f"--net={self._node}") if self._node else ()
        where = str(self.directory)
        names = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        environment = {**os.environ, **dict.fromkeys(names, where)}
        try:
            # by files: a daemon keeps what it inherits, and nobody would read a pipe to its end
            process = await asyncio.create_subprocess_exec(
                *inside,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            process = None
        code = 127 if process is None else await process.wait()
        if code == 127:
            raise NotFound(
                f"the program {command[0]} is not here",
                remedy="install Open vSwitch (Debian: openvswitch-switch)",
            )
        if code:
            raise Unavailable(
                f"{command[0]} ended with {code} instead of starting in {where}",
                remedy=f"see {where}/{command[0]}.log",
            )

    async def _make_bridge(self) -> None:
        found = await transact(self.database, _select("Bridge", ["_uuid"], self.bridge))
        if not found[0]["rows"]:
            bridge = {
                "name": self.bridge,
                "datapath_type": "netdev",
                "fail_mode": "secure",
                "ports": ["named-uuid", "p"],
            }
            await transact(
                self.database,
                *_port(self.bridge, "internal", {}),
                {"op": "insert", "table": "Bridge", "row": bridge, "uuid-name": "b"},
                _put("Open_vSwitch", [], "bridges", "insert", ["named-uuid", "b"]),
            )
        for _ in range(_TURN_UP // 20):
            if self.flows.exists():
                return
            await asyncio.sleep(0.02)
        raise Unavailable(
            f"ovs-vswitchd does not make its bridge in {self.directory}",
            remedy=f"see {self.directory}/ovs-vswitchd.log",
        )

    async def plug(self, name: str, index: int, owner: str) -> int:
        """Have the interface ``name`` of that index as a port; return its OpenFlow number.

        Raises Unavailable where the switch does not take it up.
        """
        found = await transact(self.database, _select("Interface", ["external_ids"], name))
        kept = [unmapped(row["external_ids"]) for row in found[0]["rows"]]
        wanted = {OWNER: owner, INDEX: str(index)}
        if kept and kept[0] != wanted:
            await self.unplug([name])
            kept = []
        if not kept:
            await transact(
                self.database,
                *_port(name, "system", wanted),
                _put("Bridge", [["name", "==", self.bridge]], "ports", "insert", ["named-uuid", "p"]),
            )
        ready = {
            "op": "wait",
            "table": "Interface",
            "where": [["name", "==", name]],
            "columns": ["ofport"],
            "until": "!=",
            "rows": [{"ofport": ["set", []]}],
            "timeout": _TURN_UP,
        }
        rows = await transact(self.database, ready, _select("Interface", ["ofport", "error"], name))
        number = rows[1]["rows"][0]["ofport"]
        if not isinstance(number, int) or number < 1:
            why = members(rows[1]["rows"][0]["error"])
            raise Unavailable(
                f"the switch does not take up {name} for connection {owner}: {why[0] if why else '-'}",
                remedy=f"see {self.directory}/ovs-vswitchd.log",
            )
        return number

    async def unplug(self, names: Sequence[str]) -> None:
        """Take ports away; those that are not there are gone already."""
        for name in names:
            found = await transact(self.database, _select("Port", ["_uuid"], name))
            for row in found[0]["rows"]:
                here = [["name", "==", self.bridge]]
                await transact(self.database, _put("Bridge", here, "ports", "delete", row["_uuid"]))

    async def connect(self, owner: str, one: int, other: int) -> None:
        """Lead all frames of one port to the other and back."""
        await openflow.send(self.flows, _both_ways(owner, one, other))

    async def disconnect(self, owner: str) -> None:
        """Take away all flows of a wire."""
        await openflow.send(self.flows, (openflow.forget(openflow.cookie_of(owner)),))

    async def ports(self) -> dict[str, list[str]]:
        """Return the names of the ports of each wire, by its id."""
        rows = await transact(self.database, _select("Interface", ["name", "external_ids"]))
        found: dict[str, list[str]] = {}
        for row in rows[0]["rows"]:
            owner = unmapped(row["external_ids"]).get(OWNER)
            if owner:
                found.setdefault(owner, []).append(row["name"])
        return found

    async def stop(self) -> None:
        """End both daemons, the switch first with its devices; wires through it end with them."""
        await self._leave()
        for program in PROGRAMS:
            pid_file = self.directory / f"{program}.pid"
            while pid := running(pid_file, program):
                os.kill(pid, signal.SIGTERM)
                await asyncio.sleep(0.02)

    async def _leave(self) -> None:
        """Have ``ovs-vswitchd`` end by itself: only so it takes its devices away."""
        pid_file = self.directory / "ovs-vswitchd.pid"
        request = {"method": "exit", "params": ["--cleanup"], "id": 0}
        try:
            async with asyncio.timeout(_LEAVING):
                _, writer = await asyncio.open_unix_connection(self.directory / "ovs-vswitchd.ctl")
                writer.write(json.dumps(request).encode())
                while running(pid_file, "ovs-vswitchd"):  # noqa: ASYNC110 - the end of somebody else's child
                    await asyncio.sleep(0.02)
                writer.close()
        except (OSError, TimeoutError):
            return  # it does not listen: a signal ends it


def _both_ways(owner: str, one: int, other: int) -> tuple[bytes, bytes]:
    """Return the flows of a wire between two ports."""
    cookie = openflow.cookie_of(owner)
    return openflow.forward(cookie, one, other), openflow.forward(cookie, other, one)


def _select(table: str, columns: list[str], name: str = "") -> database.Row:
    where = [["name", "==", name]] if name else []
    found: database.Row = {"op": "select", "table": table, "where": where}
    return {**found, "columns": columns} if columns else found


def _put(table: str, where: list[list[str]], column: str, how: str, value: list[str]) -> database.Row:
    return {"op": "mutate", "table": table, "where": where, "mutations": [[column, how, value]]}


def _port(name: str, kind: str, marks: dict[str, str]) -> list[database.Row]:
    """Return the operations that make a port ``named-uuid p`` with its only interface."""
    interface = {"name": name, "type": kind, "external_ids": mapping(marks)}
    port = {"name": name, "interfaces": ["named-uuid", "i"], "external_ids": mapping(marks)}
    return [
        {"op": "insert", "table": "Interface", "row": interface, "uuid-name": "i"},
        {"op": "insert", "table": "Port", "row": port, "uuid-name": "p"},
    ]
