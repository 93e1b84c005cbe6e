"""For tests of a host that has an Open vSwitch already: how it starts, and all that is there."""

from __future__ import annotations

import json

from host_lab import Host

SOCKET = "unix:/run/openvswitch/db.sock"
START = """
set -e
mkdir /run/openvswitch
cd /run/openvswitch
ovsdb-tool create conf.db /usr/share/openvswitch/vswitch.ovsschema
daemon="--detach --no-chdir -vconsole:off --pidfile"
ovsdb-server conf.db --remote=punix:/run/openvswitch/db.sock $daemon --log-file=/run/openvswitch/1.log
ovs-vsctl --no-wait init
ovs-vswitchd $daemon --log-file=/run/openvswitch/2.log
ovs-vsctl add-br br-theirs -- set bridge br-theirs datapath_type=netdev fail_mode=secure
ovs-ofctl add-flow br-theirs priority=7,in_port=LOCAL,actions=drop
"""
LIVING = {"statistics", "status", "cur_cfg", "next_cfg", "_version"}


def everything(host: Host) -> str:
    """Return what is in the switch's database, in their flows, and of devices and namespaces."""
    said = host.run("ovsdb-client", "--format=json", "dump", SOCKET, "Open_vSwitch").ok().out
    tables = []
    for line in said.splitlines():
        table = json.loads(line)
        kept = [at for at, name in enumerate(table["headings"]) if name not in LIVING]
        tables.append(
            [table["caption"], *sorted(json.dumps([row[at] for at in kept]) for row in table["data"])]
        )
    flows = host.run("ovs-ofctl", "--no-stats", "dump-flows", "br-theirs").ok().out
    devices = [one["ifname"] for one in json.loads(host.run("ip", "-j", "link").ok().out)]
    spaces = host.run("ip", "netns", "list").ok().out
    return json.dumps([tables, flows, sorted(devices), spaces], indent=1)
