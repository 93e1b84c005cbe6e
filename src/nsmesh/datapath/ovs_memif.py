"""Memif ports of a switch: the devices of DPDK behind them, and how many of its ports each of them takes.

Each thread of a switch sends to a ring of its own, where a device has as many: the main thread, which serves
interfaces, to the first, the polling one to the second. DPDK's memif says that it has 255, and most peers
have one. So where frames come from another socket the device is a *fail-safe* one, which says of what it has
inside the least: a memif, to which all frames go, and a dump, which has one ring. Both threads use that one.
Where the peer listens it is such a device as well: the switch would make a ring for each of its threads
there, and libmemif, which lets a client believe that it takes 256, ends the connection at the second one.
"""

from __future__ import annotations

import re
import secrets

from nsmesh.datapath.ovs_database import Row, members, unmapped
from nsmesh.datapath.ovs_rows import SwitchPort
from nsmesh.model.tunnels import BridgePort
from nsmesh.model.wire import CrossConnect, MemifPort

KIND = "dpdk"
DEVICE = "dpdk-devargs"
"""Option of an interface: its device, with that device's own options behind commas."""
ROLE = {"client": "memif-client", "server": "memif-server"}
"""How the mark of a memif port begins, by what the switch is there."""
ONE_RING = " one-ring"
"""How the mark of a port ends whose device has one ring."""
MOST_MEMIF = 31
"""Memif ports of a switch: distributions build DPDK for 32 (RTE_MAX_ETHPORTS), and one keeps the buffers."""
DRIVERS = "librte-net-failsafe23, librte-net-pcap23"
"""What Debian calls the packages with the drivers of such a device."""
DUMP = "net_pcap"
"""A driver of DPDK whose devices have as many rings as they have files."""
_NAME = re.compile(r"((?:^|\()net_[a-z]+)\d+")
_PLACES, _PLACES_OF_ONE_RING = 1, 3


def fresh() -> int:
    """Return the number of a device: DPDK takes no name twice, not even after an attempt that failed."""
    return secrets.randbelow(1 << 31)


def device(options: str) -> str:
    """Return a memif device with these options of its own."""
    return f"net_memif{fresh()},{options}"


def device_of_one_ring(options: str) -> str:
    """Return a device that is a memif with these options, and says that it has one ring to send to."""
    return f"net_failsafe{fresh()},dev({device(options)}),dev({DUMP}{fresh()},tx_pcap=/dev/null)"


def anew(device: str) -> str:
    """Return the same device by other names."""
    return _NAME.sub(lambda found: f"{found[1]}{fresh()}", device)


def memif_port(name: str, end: MemifPort, path: str, wire: CrossConnect) -> SwitchPort:
    """Return the port of a memif end whose socket is at ``path``."""
    role = "client" if end.listens else "server"
    options = f"role={role},id={end.id},socket={path},socket-abstract=no"
    mark = f"{ROLE[role]} {end.id} {path}"
    if _has_one_ring(end, wire):
        return SwitchPort(name, KIND, ((DEVICE, device_of_one_ring(options)),), mark + ONE_RING)
    return SwitchPort(name, KIND, ((DEVICE, device(options)),), mark)


def _has_one_ring(end: MemifPort, wire: CrossConnect) -> bool:
    """Whether a memif end must have one ring, or its frames may come from the polling thread.

    They do from another socket, and from a NIC that DPDK owns.
    """
    return end.listens or len(wire.sockets) > 1 or isinstance(wire.tunnel, BridgePort)


def places_for(wire: CrossConnect) -> int:
    """Return how many of DPDK's ports the memif ends of a wire take; 0 where it has none."""
    ends = [end for end in wire.sockets if isinstance(end, MemifPort)]
    return sum(_PLACES_OF_ONE_RING if _has_one_ring(end, wire) else _PLACES for end in ends)


def places_of(mark: str) -> int:
    """Return how many of DPDK's ports the one with this mark takes; 0 where it is no memif."""
    if not mark.startswith(tuple(ROLE.values())):
        return 0
    return _PLACES_OF_ONE_RING if mark.endswith(ONE_RING) else _PLACES


def lacks_its_dump(port: SwitchPort, row: Row) -> bool:
    """Whether a port was to have one ring, and has been taken up without: DPDK takes the memif alone, too."""
    if not port.mark.endswith(ONE_RING) or not members(row["ofport"]):
        return False
    return unmapped(row["status"]).get("max_tx_queues") != "1"


def socket_of(row: Row) -> str:
    """Return the socket of a memif port, from its row in the database."""
    found = re.search(r"(?:^|,)socket=([^,]*)", unmapped(row["options"]).get(DEVICE, ""))
    return found[1] if found else ""
