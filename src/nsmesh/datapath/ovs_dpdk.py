"""Ports of a switch in memory that is shared with user-space processes: memif and vhost-user, by DPDK.

DPDK is started with the first such port and takes its memory then; from there on a thread of the switch
polls all of these ports, and sleeps between looks that found nothing.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from nsmesh.core.errors import Invalid, Refused
from nsmesh.datapath.base import TunnelRefused
from nsmesh.datapath.ovs_memif import DEVICE, KIND, MOST_MEMIF, device, memif_port
from nsmesh.datapath.ovs_rows import SwitchPort
from nsmesh.model.sockets import PATH_LIMIT
from nsmesh.model.tunnels import BridgePort
from nsmesh.model.wire import (
    CrossConnect,
    KernelPort,
    MemifPort,
    Port,
    SocketPort,
    TunnelPort,
    VhostUserPort,
)

MEMORY = 256
"""MiB of memory that suffice for all memif ports of a switch."""
SLEEP = 100
"""Microseconds at most that the polling thread sleeps after looks that found nothing."""
VHOST_CLIENT, VHOST_SERVER = "dpdkvhostuserclient", "dpdkvhostuser"
KINDS = frozenset({KIND, VHOST_CLIENT, VHOST_SERVER})
_TAIL = 20_000
"""Bytes of the log that are looked at for a port's error."""
KEEPER = "nsm-buffers"
"""Name of the port that keeps the buffers."""
SOCKETS, PEERS = "sockets", "peers"
"""Folders of a switch: where it listens itself, and links to where others do."""


def options(memory: int, directory: Path, core: int | None = None) -> dict[str, str]:
    """Return the configuration of a switch whose DPDK has ``memory`` MiB: no huge pages, no devices.

    ``core``: on which one it polls; None: Open vSwitch chooses.
    """
    prefix = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    extra = f"--no-huge --legacy-mem -m {memory} --no-pci --file-prefix=nsm{prefix}"
    # the name of the last one changed with Open vSwitch 3.2
    sleep = dict.fromkeys(("pmd-maxsleep", "pmd-sleep-max"), str(SLEEP))
    where = {} if core is None else {"pmd-cpu-mask": hex(1 << core)}
    return {"dpdk-init": "try", "dpdk-extra": extra, **sleep, **where}


@dataclass(frozen=True, slots=True)
class Sockets:
    """The sockets of a switch's ports: those at which it listens, and a link to the socket of each port.

    ``directory``: where nobody else can put or open anything. ``listening``: where the switch listens for
    wires, as other switches of its forwarder do. ``making``: where it makes sockets that are named after
    their ports. A port keeps the path of a link, which leads to
    wherever the peer's socket is now: a forwarder that starts again has it by another descriptor, and a peer
    that starts again has another socket.
    """

    directory: Path
    listening: Path
    making: Path

    def port(self, name: str, end: SocketPort, wire: CrossConnect) -> SwitchPort:
        """Return the port of an end, and put its link where it belongs.

        Raises Refused for a socket that did not come as a descriptor, Invalid for a path that is too long.
        """
        path = self._peer(name, end, wire) if end.listens else self._own(name, end, wire)
        if isinstance(end, VhostUserPort):
            return self._vhost(name, end, path)
        return memif_port(name, end, str(path), wire)

    def keeper(self) -> SwitchPort:
        """Return the port that keeps the buffers: a memif that nobody has.

        The switch makes its pool of buffers with the first port that is connected, and it goes with the last.
        Where the largest pool does not fit, an attempt may fail, and of a machine that comes then nobody is
        told. What is here already is found, and shared.
        """
        path = self.directory / SOCKETS / KEEPER
        path.parent.mkdir(exist_ok=True)
        options = f"role=server,id=0,socket={path},socket-abstract=no"
        return SwitchPort(KEEPER, KIND, ((DEVICE, device(options)),))

    def _vhost(self, name: str, end: VhostUserPort, path: Path) -> SwitchPort:
        rings = (("n_rxq", str(end.queues)),)
        if end.listens:
            return SwitchPort(
                name, VHOST_CLIENT, (("vhost-server-path", str(path)), *rings), f"client {path}"
            )
        _link(path, self.making / name)
        return SwitchPort(name, VHOST_SERVER, mark=f"server {path}")

    def _own(self, name: str, end: SocketPort, wire: CrossConnect) -> Path:
        """Return where the switch listens: only in its own folder, whatever path was agreed on."""
        path = Path(end.socket)
        if path.parent != self.listening:
            raise Refused(
                f"connection {wire.id} would have the switch listen at {end.socket}, outside of its folder",
                remedy="leave the choice of the socket to the forwarder",
            )
        path.parent.mkdir(exist_ok=True)
        _link(self.directory / PEERS / name, path)
        return _short(path, wire)

    def _peer(self, name: str, end: SocketPort, wire: CrossConnect) -> Path:
        """Return the link to a socket of somebody else, which must have come as a descriptor."""
        if not end.socket.startswith(f"/proc/{os.getpid()}/fd/"):
            what = "is a name in a network namespace" if end.socket.startswith("@") else "is a path of theirs"
            raise Refused(
                f"the socket {end.socket} of connection {wire.id} {what}: the switch opens what came as a "
                "descriptor alone",
                remedy="listen at a file, and let a unix socket carry it (inodeURL)",
            )
        link = _short(self.directory / PEERS / name, wire)
        _link(link, Path(end.socket))
        return link

    def forget(self, names: tuple[str, ...]) -> None:
        """Take away the links and sockets of ports that are gone."""
        for name in names:
            link = self.directory / PEERS / name
            if link.is_symlink():
                target = link.readlink()
                if target.parent == self.listening:
                    target.unlink(missing_ok=True)
                link.unlink()

    def sweep(self) -> None:
        """Take away the sockets of a switch that was killed: a new one could not listen there."""
        (self.directory / SOCKETS / KEEPER).unlink(missing_ok=True)
        for link in (self.directory / PEERS).glob("nsmo*"):
            path = link.readlink()
            if path.parent == self.listening:
                made = path.readlink() if path.is_symlink() else path
                made.unlink(missing_ok=True)


def _link(link: Path, target: Path) -> None:
    """Have a link lead somewhere; at no time it leads nowhere."""
    link.parent.mkdir(exist_ok=True)
    new = link.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _short(path: Path, wire: CrossConnect) -> Path:
    if len(str(path).encode()) > PATH_LIMIT:
        raise Invalid(
            f"the socket {path} of connection {wire.id} has {len(str(path).encode())} bytes, and the kernel "
            f"takes at most {PATH_LIMIT}",
            remedy="choose a shorter folder for the switch (NSM_SWITCH_DIRECTORY, nsm up --run-dir)",
        )
    return path


def is_socket(end: Port) -> TypeGuard[SocketPort]:
    """Whether an end is a socket of a user-space process."""
    return isinstance(end, MemifPort | VhostUserPort)


def has_leg(end: Port) -> TypeGuard[KernelPort | TunnelPort]:
    """Whether an end takes something of the kernel's: an interface, here or towards another node."""
    return isinstance(end, KernelPort | TunnelPort) and not isinstance(end, BridgePort)


def check_ends(wire: CrossConnect) -> None:
    """Raise Refused for a wire that this switch cannot make, TunnelRefused where it is the tunnel's fault."""
    tunnel = wire.tunnel
    if tunnel is not None and not tunnel.frames:
        raise TunnelRefused(
            f"the tunnel of connection {wire.id} carries bare packets, and this switch takes frames",
            remedy="offer another mechanism, such as VXLAN, or another forwarder",
        )


def explained(port: SwitchPort, said: str, log: Path, memory: int) -> tuple[str, str]:
    """Return why the switch did not take a port up, and what to do: for DPDK, only its log tells."""
    if not log.exists():
        return said, "see the log of ovs-vswitchd"
    if port.kind in KINDS:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            text = file.read().decode(errors="replace")
        lines = [line for line in text.splitlines() if port.name in line]
        if any("memory pool" in line for line in lines):
            why = f"{memory} MiB are not enough for the buffers of DPDK"
            return why, f"give it more by NSM_DPDK_MEMORY; {MEMORY} suffice for all memif ports of a switch"
        if any("Failed to connect" in line for line in lines):
            return "nobody listens at its socket", "start the endpoint's memif before it answers Requests"
        if "attaching" in said and "Reached maximum number of Ethernet ports" in text:
            why = f"the switch has as many memif ports as its DPDK was built for, {MOST_MEMIF} at most"
            return why, "close another memif connection of this node"
    return said, f"see {log}"
