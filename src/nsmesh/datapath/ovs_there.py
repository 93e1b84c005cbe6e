"""A switch of somebody else's: whether it is there, what it can do, and when it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

from nsmesh.core.errors import Conflict, Invalid, MeshError, NotFound, Refused, Unavailable
from nsmesh.datapath import netns
from nsmesh.datapath.ovs_database import SCHEMA, call, members, transact
from nsmesh.datapath.ovs_openflow import until_end
from nsmesh.datapath.ovs_rows import select
from nsmesh.datapath.ovs_uptake import look_again

_CREDENTIALS = struct.Struct("=iII")
_NAME = "NSM_SWITCH_DATABASE"


def path_of(remote: str) -> Path:
    """Return the socket of a database, from how Open vSwitch names it. Raises Invalid for another kind."""
    scheme, colon, path = remote.rpartition(":")
    if scheme not in {"unix", ""} or not path.startswith("/"):
        raise Invalid(
            f"{remote} is no unix socket of a database on this node{' by its full path' if colon else ''}",
            remedy=f"set {_NAME} to such as unix:/var/run/openvswitch/db.sock",
        )
    return Path(path)


async def check(database: Path, kind: str) -> None:
    """Raise a MeshError that says why no bridge with this type of datapath can be had there."""
    _check_socket(database)
    schemas = await call(database, "list_dbs")
    if SCHEMA not in schemas:
        others = ", ".join(sorted(name for name in schemas if not name.startswith("_"))) or "none"
        raise Refused(
            f"the database at {database} is not that of a switch: it has {others}, and no {SCHEMA}",
            remedy=f"correct {_NAME}",
        )
    rows = (await transact(database, select("Open_vSwitch", ["datapath_types"])))[0]["rows"]
    if not rows:
        raise Unavailable(
            f"the database at {database} is empty: no ovs-vswitchd has worked with it",
            remedy="have Open vSwitch started there (ovs-vsctl init, ovs-vswitchd)",
        )
    try:
        await look_again(database)
    except Refused as error:
        raise Unavailable(
            f"the database at {database} answers, and its ovs-vswitchd does not",
            remedy="have ovs-vswitchd started there, or see its log",
        ) from error
    rows = (await transact(database, select("Open_vSwitch", ["datapath_types"])))[0]["rows"]
    types = members(rows[0]["datapath_types"])
    if kind not in types:
        raise Refused(
            f"the switch at {database} has no datapaths of type {kind}: it has {', '.join(sorted(types))}",
            remedy="set NSM_DATAPATH_TYPE to one of these",
        )


async def has_dpdk(database: Path) -> bool:
    """Whether DPDK runs in the switch. Raises what the database raises."""
    rows = (await transact(database, select("Open_vSwitch", ["dpdk_initialized"])))[0]["rows"]
    return bool(rows and rows[0]["dpdk_initialized"])


def _check_socket(database: Path) -> None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(str(database))
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no socket {database}, where an Open vSwitch is said to be",
            remedy=f"start it, or correct {_NAME}",
        ) from error
    except PermissionError as error:
        raise Refused(
            f"the socket {database} may not be used by user {os.geteuid()}",
            remedy="run the forwarder as root, or as whoever may administer that Open vSwitch",
        ) from error
    except OSError as error:
        raise Unavailable(
            f"nobody listens at {database}: {error}", remedy=f"start Open vSwitch, or correct {_NAME}"
        ) from error


def check_home(flows: Path, home: str) -> None:
    """Raise Conflict where a switch lives in another network namespace than ``home``.

    Nothing is found out where it is in a container with process ids of its own.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(str(flows))
            told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        (pid, _, _) = _CREDENTIALS.unpack(told)
        theirs = netns.of_pid(pid)
        same = not pid or netns.identity(theirs) == netns.identity(home)
    except (OSError, MeshError):
        return
    if not same:
        raise Conflict(
            f"the switch at {flows.parent} (pid {pid}) lives in another network namespace than {home}",
            remedy=f"set NSM_SWITCH_NETNS to a path of it, such as {theirs}",
        )


async def end(database: Path, flows: Path) -> str:
    """Return which program of a switch has ended, as soon as one has."""
    waiting = {
        asyncio.create_task(_closed(database)): "ovsdb-server",
        asyncio.create_task(until_end(flows)): "ovs-vswitchd",
    }
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    return waiting[done.pop()]


async def _closed(database: Path) -> None:
    """Return when the database closes a connection, or takes none."""
    with suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(database)
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.close()
