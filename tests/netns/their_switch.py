"""For tests: an Open vSwitch as somebody else has made it by hand, with a bridge, ports and flows in use."""

import asyncio
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import datapath_lab as lab

from nsmesh.datapath import netns
from nsmesh.datapath.ovs import OvsDatapath
from nsmesh.datapath.ovs_programs import WITH_DPDK, running
from nsmesh.datapath.ovs_shared import SharedSwitch

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
BRIDGE = "br-theirs"
LIVING = {"statistics", "status", "cur_cfg", "next_cfg", "_version", "link_resets", "dpdk_initialized"}
"""Columns that change by themselves, or with each client that waits for the switch."""
FLOWS = (
    "cookie=0xabc,priority=7,in_port=1,actions=output:2",
    "cookie=0xabc,priority=7,in_port=2,actions=output:1",
    "cookie=0xdef,table=3,priority=9,ip,nw_dst=192.0.2.1,actions=drop",
)
CONFIG = ("other_config:stats-update-interval=7000", "external_ids:hostname=theirs")


OUT, NIC = "br-ext", "ext0"
"""A bridge that leads out, if it is made, by its only port."""


def has_module():
    """Whether the kernel has Open vSwitch's datapath: it is loaded for that."""
    with suppress(OSError):
        subprocess.run(["modprobe", "openvswitch"], capture_output=True, check=False)
    return Path("/sys/module/openvswitch").exists()


class TheirSwitch:
    """Its daemons in a folder and a namespace, and a wire of its own between two pods ``c`` and ``d``."""

    def __init__(self, folder, space, c, d):
        self.folder, self.space, self.c, self.d = Path(folder), space, c, d
        self.database = self.folder / "db.sock"
        self.program = "ovs-vswitchd"
        self._places = set()

    def start_database(self, schema=SCHEMA):
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / "conf.db").exists():
            self.run("ovsdb-tool", "create", "conf.db", schema)
        self.run("ovsdb-server", "conf.db", f"--remote=punix:{self.database}", *self._daemon("ovsdb-server"))

    def start_switch(self):
        self.run(self.program, f"unix:{self.database}", *self._daemon("ovs-vswitchd"))

    def start(self):
        """Start it, with all that is theirs."""
        if not running(self.folder / "ovsdb-server.pid", "ovsdb-server"):
            self.start_database()
            self.vsctl("--no-wait", "init")
        self.start_switch()
        self.vsctl("set", "Open_vSwitch", ".", *CONFIG)
        if BRIDGE not in self.vsctl("list-br").split():
            self._wire()
        self.run("ovs-ofctl", "-OOpenFlow13", "add-flows", self._management(), "-", told="\n".join(FLOWS))
        return self

    def _wire(self):
        self.vsctl(
            "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=secure"
        )
        self.vsctl("set", "bridge", BRIDGE, "other_config:mac-aging-time=77")
        for number, pod in enumerate((self.c, self.d), 1):
            port, place = f"theirs{number}", Path(pod).name
            self.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", place)
            self.run("ip", "link", "set", port, "up")
            lab.run(pod, "ip", "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            lab.run(pod, "ip", "link", "set", "eth0", "up")
            lab.run(pod, "ethtool", "-K", "eth0", "tx", "off")
            self.vsctl("add-port", BRIDGE, port, "--", "set", "interface", port, f"ofport_request={number}")

    def lead_out(self, outside, *, mtu=1500, kind="netdev"):
        """Have a bridge whose only port is a veth with its other end, ``eth0``, in a namespace."""
        place, size = Path(outside).name, str(mtu)
        peer = ("type", "veth", "peer", "name", "eth0", "mtu", size, "netns", place)
        self.run("ip", "link", "add", NIC, "up", "mtu", size, *peer)
        lab.run(outside, "ip", "link", "set", "eth0", "up")
        self.add_out(kind)

    def add_out(self, kind="netdev"):
        """Make that bridge in the database."""
        self.vsctl("add-br", OUT, "--", "set", "bridge", OUT, f"datapath_type={kind}")
        self.vsctl("add-port", OUT, NIC)

    def far_ports(self):
        """Return the ports of the bridge that leads out which are not its own, each with its tag."""
        names = set(self.vsctl("list-ports", OUT).split()) - {NIC}
        return {name: int(self.vsctl("get", "port", name, "tag")) for name in names}

    def _management(self):
        return f"unix:{self.folder / BRIDGE}.mgmt"

    def _daemon(self, name):
        there = self.folder / name
        return (f"--pidfile={there}.pid", f"--log-file={there}.log", f"--unixctl={there}.ctl", *QUIET)

    def run(self, *command, told=None):
        """Run a program where the switch is; return what it says."""
        names = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        done = subprocess.run(
            ["nsenter", f"--net={self.space}", *command],
            cwd=self.folder,
            env={**os.environ, **dict.fromkeys(names, str(self.folder))},
            input=told,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def vsctl(self, *command):
        return self.run("ovs-vsctl", f"--db=unix:{self.database}", "--timeout=20", *command)

    def everything(self):
        """Return all that is in the database, in the flows of their bridge, and of devices, as text."""
        text = self.run("ovsdb-client", "--format=json", "dump", f"unix:{self.database}", "Open_vSwitch")
        tables = []
        for line in text.splitlines():
            table = json.loads(line)
            kept = [at for at, name in enumerate(table["headings"]) if name not in LIVING]
            rows = sorted(json.dumps([row[at] for at in kept]) for row in table["data"])
            tables.append([table["caption"], *rows])
        flows = self.run("ovs-ofctl", "-OOpenFlow13", "--no-stats", "dump-flows", self._management())
        return json.dumps([tables, flows.splitlines(), sorted(lab.names(self.space))], indent=1)

    def theirs(self):
        """Return what of it must not change while we are there: their bridge, ports, flows and settings."""
        bridges = self.run(
            "ovs-vsctl", f"--db=unix:{self.database}", "--format=json", "list", "bridge", BRIDGE
        )
        (row,) = json.loads(bridges)["data"]
        asked = ("other_config", "external_ids")
        settings = [self.vsctl("get", "Open_vSwitch", ".", column) for column in asked]
        ports = [self.vsctl("list", "port", f"theirs{number}") for number in (1, 2)]
        flows = self.run("ovs-ofctl", "-OOpenFlow13", "--no-stats", "dump-flows", self._management())
        return json.dumps([row, settings, ports, flows], indent=1)

    def works(self):
        """Whether their own wire carries frames."""
        return lab.pings(self.c, "10.77.0.2")

    def pid(self, program):
        return running(self.folder / f"{program}.pid", program)

    def kill(self, *programs, number=signal.SIGKILL):
        """End daemons, and return when they have ended."""
        for program in programs:
            if pid := self.pid(program):
                os.kill(pid, number)
                while self.pid(program) == pid or _has_threads(pid):
                    time.sleep(0.01)

    def end(self):
        """End it, and what a driver has left that did not get to its end."""
        self.kill("ovs-vswitchd", "ovsdb-server", number=signal.SIGTERM)
        for place in filter(Path.exists, self._places):
            netns.delete(place.name)

    async def pings(self, pod, address="10.0.1.2", seconds=30):
        """Return whether a ping passes in time."""
        end = asyncio.get_running_loop().time() + seconds
        while not (passed := await asyncio.to_thread(lab.pings, pod, address)):
            if asyncio.get_running_loop().time() > end:
                break
        return passed

    def driver(self, folder, pods, *, name="one", **given):
        """Return a driver that uses this switch."""
        first = SharedSwitch(folder, self.space, database=self.database, owner=f"forwarder:{name}", **given)
        self._places.add(Path(first.spares.place))
        return OvsDatapath(first, owner=f"forwarder:{name}", namespaces=lambda: pods, most=1)


def _has_threads(pid):
    """Whether a process that was killed still has some: they keep its pid file locked."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except FileNotFoundError:
        return False


QUIET = ("-vconsole:off", "--detach", "--no-chdir")
__all__ = ["BRIDGE", "WITH_DPDK", "TheirSwitch"]
