"""A switch of our own: ``ovsdb-server`` and ``ovs-vswitchd`` with a private run directory.

Both are daemons that outlive whoever started them: the next one finds them by their pid files and goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError, NotFound, Refused, Unavailable
from nsmesh.datapath.ovs_database import mapping, transact
from nsmesh.datapath.ovs_dpdk import KINDS, SOCKETS, Sockets, options
from nsmesh.datapath.ovs_ends import take_away
from nsmesh.datapath.ovs_programs import running, switch_program
from nsmesh.datapath.ovs_rows import await_value, select
from nsmesh.datapath.ovs_switch import BRIDGE, Switch
from nsmesh.datapath.ovs_uptake import PATIENCE
from nsmesh.datapath.ovs_wear import allow_descriptors, is_worn_out, memory

log = structlog.get_logger()

SCHEMA_FILE = "/usr/share/openvswitch/vswitch.ovsschema"
PROGRAMS = ("ovs-vswitchd", "ovsdb-server")
PAUSE = 0.2
"""Seconds between two attempts to start what does not start."""
REST = 0.02
"""Seconds between two starts: a daemon that dies as soon as it runs shall not take the processor."""
_LEAVING = 5.0
"""Seconds within which ``ovs-vswitchd`` must have taken its devices away."""


class OwnSwitch(Switch):
    """One bridge, ``datapath_type=netdev``; its daemons live in ``directory`` and the namespace ``node``.

    A namespace can have one such switch: its device ``ovs-netdev`` has the same name in all of them.
    ``bridge``, ``memory``, ``spares`` and ``ends`` as of :class:`Switch`. ``listening``: where it listens for
    memif clients; None: in a folder of its own. ``core``: on which it polls DPDK's ports; None: one that Open
    vSwitch chooses.
    """

    def __init__(
        self,
        directory: Path,
        node: str = "",
        bridge: str = BRIDGE,
        memory: int = 0,
        *,
        spares: int = 0,
        ends: str = "",
        listening: Path | None = None,
        core: int | None = None,
    ) -> None:
        super().__init__(
            directory,
            node,
            bridge,
            memory,
            database=directory / "db.sock",
            sockets=Sockets(directory, listening or directory / SOCKETS, directory),
            spares=spares,
            ends=ends,
        )
        self._core = core
        self._pid_file = directory / "ovs-vswitchd.pid"
        self._behind = False
        """Whether ``ovs-vswitchd`` was started, and has not got the flows of all wires yet."""

    async def ensure(self) -> None:
        """Start what does not run; a new ``ovs-vswitchd`` gets the flows of all wires that have ports.

        Raises NotFound without Open vSwitch, Unavailable where it fails.
        """
        async with self._starting:
            server = running(self.directory / "ovsdb-server.pid", "ovsdb-server")
            if not server:
                await self._start_database()
            if not running(self._pid_file, "ovs-vswitchd"):
                await self._start_anew()
            elif not server or not self.flows.exists():
                await self._make_bridge()
            if self._behind:
                await self.ports.connect_again()
                self._behind = False

    async def _start_anew(self) -> None:
        """Start ``ovs-vswitchd``, which owes its wires their flows then."""
        self._has_dpdk = False
        self.sockets.sweep()
        self.flows.unlink(missing_ok=True)  # the dead one's, at which nobody listens
        # ports of DPDK need its buffers, and nothing else may have taken memory before these are there
        aside = await self.ports.set_aside(lambda row: row["type"] in KINDS)
        try:
            await self._start_switch()
            self._behind = True
            try:
                await self._make_bridge()
            except Unavailable:
                await self._end("ovs-vswitchd")  # it does not try again by itself
                raise
            if aside:
                await self._hold_buffers()
        finally:
            await self.ports.bring_back(aside)

    async def _start_database(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "conf.db"
        if not file.exists():
            await self._run("ovsdb-tool", "create", str(file), SCHEMA_FILE)
        await self._daemon("ovsdb-server", str(file), f"--remote=punix:{self.database}")
        root = await transact(self.database, select("Open_vSwitch", []))
        if not root[0]["rows"]:
            await transact(self.database, {"op": "insert", "table": "Open_vSwitch", "row": {}})

    async def _start_switch(self) -> None:
        program = switch_program(dpdk=True) if self.memory else ""
        await self._daemon("ovs-vswitchd", f"unix:{self.database}", "--no-chdir", path=program)
        if self.memory and (pid := running(self._pid_file, "ovs-vswitchd")):
            allow_descriptors(pid)

    async def renewed(self) -> bool:
        """Have another ``ovs-vswitchd`` where DPDK has used its memory up; return whether it was so.

        It gets all wires, which pause meanwhile. Raises what :meth:`ensure` raises.
        """
        async with self._starting:
            if not self._has_dpdk or not await is_worn_out(
                self.directory / "ovs-vswitchd.ctl", self._pid_file
            ):
                return False
            log.warning(
                "DPDK has used its memory up: another switch takes over", directory=str(self.directory)
            )
            await self._end("ovs-vswitchd")
        await self.ensure()
        return True

    async def _end(self, program: str) -> None:
        """End a daemon by a signal, and wait for its end."""
        pid_file = self.directory / f"{program}.pid"
        while pid := running(pid_file, program):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            await asyncio.sleep(0.02)

    async def dpdk_memory(self) -> dict[tuple[str, ...], float]:
        """Return the bytes of DPDK, free and used; nothing where it does not run, or does not answer."""
        if not self._has_dpdk:
            return {}
        try:
            found = await memory(self.directory / "ovs-vswitchd.ctl")
        except Unavailable as error:
            log.debug("DPDK does not tell its memory", error=str(error))
            return {}
        return {(state,): float(size) for state, size in found.items()}

    async def ensure_dpdk(self) -> None:
        """Have DPDK started; it takes its memory now, and its buffers, which a port of ours keeps.

        Raises Refused where this switch has none, Unavailable where it does not start or has not enough.
        """
        if not self.memory:
            raise Refused("this switch has no DPDK", remedy="install it, and set NSM_DPDK_MEMORY")
        async with self._starting:
            if not self._has_dpdk:
                await self._hold_buffers()

    async def _hold_buffers(self) -> None:
        await self._start_dpdk()
        await self.ports.hold(self.sockets.keeper())
        self._has_dpdk = True

    async def _start_dpdk(self) -> None:
        wanted = options(self.memory, self.directory, self._core)
        keys = ["set", list(wanted)]
        mutations = [["other_config", "delete", keys], ["other_config", "insert", mapping(wanted)]]
        change = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": mutations}
        begun = await_value("Open_vSwitch", "dpdk_initialized", True, PATIENCE)  # noqa: FBT003 - a value
        try:
            await transact(self.database, change)
            await transact(self.database, begun)
        except Refused as error:
            raise Unavailable(
                f"DPDK does not start with {self.memory} MiB: {error.what}",
                remedy=f"see {self.directory}/ovs-vswitchd.log, or set NSM_DPDK_MEMORY",
            ) from error

    async def _daemon(self, program: str, *arguments: str, path: str = "") -> None:
        there = self.directory
        await self._run(
            path or program,
            *arguments,
            f"--pidfile={there / program}.pid",
            f"--log-file={there / program}.log",
            f"--unixctl={there / program}.ctl",
            "-vconsole:off",
            "--detach",
        )

    async def _run(self, *command: str) -> None:
        inside = ("nsenter", f"--net={self.node}") if self.node else ()
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
        found = await transact(self.database, select("Bridge", ["_uuid"], self.bridge))
        if not found[0]["rows"]:
            await self._new_bridge("netdev", {})
        await self._await_flows()

    async def keep(self) -> None:
        """See :meth:`Switch.keep`: a daemon that dies is started again at once."""
        with suppress(MeshError):
            await self.ensure()  # one that is just being started is not dead
        while True:
            dead = await self._a_death()
            log.warning("a daemon of the switch is gone: it is started again", program=dead)
            await self._until_back()
            log.info("the switch is back", program=dead)
            await asyncio.sleep(REST)

    async def _until_back(self) -> None:
        while True:
            try:
                await self.ensure()
            except MeshError as error:
                log.warning("the switch cannot be started", error=str(error))
                await asyncio.sleep(PAUSE)
            else:
                return

    async def _a_death(self) -> str:
        """Return which daemon does not run, as soon as one does not."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        with ExitStack() as stack:
            for program in PROGRAMS:
                pid = running(self.directory / f"{program}.pid", program)
                try:
                    opened = os.pidfd_open(pid) if pid else -1
                except ProcessLookupError:
                    opened = -1
                if opened < 0:
                    return program
                stack.callback(os.close, opened)
                loop.add_reader(opened, ended.set)
                stack.callback(loop.remove_reader, opened)
            await ended.wait()
        return next((name for name in PROGRAMS if not running(self.directory / f"{name}.pid", name)), "")

    async def stop(self) -> None:
        """End both daemons, the switch first with its devices; wires through it end with them."""
        await self._leave()
        for program in PROGRAMS:
            await self._end(program)
        take_away(self._home, self.spares.place)
        self.spares.forget()

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
