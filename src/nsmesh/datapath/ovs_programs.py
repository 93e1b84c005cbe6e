"""The programs of Open vSwitch on this host, and whether they can do DPDK."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

WITH_DPDK = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
"""Where Debian and Ubuntu put the build with DPDK, beside the one that they call ``ovs-vswitchd``."""
PACKAGE, DPDK_PACKAGE = "openvswitch-switch", "openvswitch-switch-dpdk librte-meta-net"
_MEMIF_DRIVER = "lib*/*/dpdk/pmds-*/librte_net_memif.so"


def switch_program(*, dpdk: bool) -> str:
    """Return the program of the switch, by path; ``dpdk``: the build with DPDK. Empty: it is not here."""
    if dpdk:
        return WITH_DPDK if os.access(WITH_DPDK, os.X_OK) else ""
    return shutil.which("ovs-vswitchd") or ""


def lacks_switch() -> str:
    """Return why this node can have no switch, or nothing."""
    missing = [name for name in ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool") if not shutil.which(name)]
    return f"{missing[0]} is not found in PATH" if missing else ""


def lacks_dpdk() -> str:
    """Return why a switch of this node cannot have ports of DPDK, or nothing."""
    why = lacks_switch() or ("" if switch_program(dpdk=True) else f"{WITH_DPDK} is not here")
    return why or ("" if any(Path("/usr").glob(_MEMIF_DRIVER)) else "DPDK's driver of memif is not here")


def running(pid_file: Path, program: str) -> int:
    """Return the pid of the program that a pid file tells, or 0 where it does not run.

    The build with DPDK has another name behind the same beginning. One that was killed runs until its last
    thread has ended: so long it has its devices, and the next one would not get them.
    """
    try:
        pid = int(pid_file.read_text())
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except (OSError, ValueError):
        return 0
    ended = rest.split()[0] in {"Z", "X"} and threads <= 1
    return pid if name.startswith(program[:15]) and not ended else 0
