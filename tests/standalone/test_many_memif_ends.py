"""More memif ends on a node of a mesh than one switch takes, and what becomes of its second switch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest
from mesh_lab import PACKETS, Lab, client_box, documents, is_gone, ping, until

from nsmesh.datapath import netns, ovs_programs
from nsmesh.datapath.ovs_memif import MOST_MEMIF
from nsmesh.datapath.ovs_programs import running
from nsmesh.endpoints.memif_answers import folder_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]
BOTH = ("--forwarders", "linux,ovs")
COUNT = MOST_MEMIF + 2
LAST = f"172.30.3.{2 * (COUNT - 1)}"


def pids(lab):
    """Return the pids of the daemons of both switches."""
    folders = (lab.run / "ovs", lab.run / "ovs" / "2")
    names = ("ovs-vswitchd", "ovsdb-server")
    return [running(folder / f"{name}.pid", name) for folder in folders for name in names]


@pytest.mark.parametrize("options", [(), ("--separate",)], ids=" ".join)
def test_the_second_switch_outlives_a_killed_daemon_and_goes_with_the_mesh(options):
    """Pings pass on both; a daemon that is killed and started again loses none; down leaves nothing."""
    with Lab() as lab:
        lab.up(*BOTH, *options)
        lab.apply(documents(PACKETS, client_box(COUNT))).ok()
        box = f"{lab.mesh}.box"
        for address in ("172.30.3.0", LAST):
            assert ping(box, address)
        before = pids(lab)
        assert all(before)
        assert f"{lab.mesh}.ovs-2" in map(os.path.basename, netns.named())
        argv = ["ip", "netns", "exec", box, "ping", "-n", "-i", "0.01", LAST]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as stream:
            pid = lab.daemon()
            os.kill(pid, signal.SIGKILL)
            until(lambda: is_gone(pid))
            assert "removed" not in lab.nsm("up", *BOTH, *options).ok().out
            until(lambda: [row["state"] for row in lab.get("clients")] == ["up"], 40)
            time.sleep(0.5)
            stream.send_signal(signal.SIGINT)
            out, _ = stream.communicate(timeout=10)
        came = set(map(int, re.findall(r"icmp_seq=(\d+) ttl", out)))
        assert len(came) > 20
        assert sorted(set(range(1, max(came))) - came) == []
        for address in ("172.30.3.0", LAST):
            until(lambda address=address: ping(box, address), 20)
        assert pids(lab) == before
        assert lab.nsm("status", "-o", "json").ok().json()["audit"] == []
        lab.nsm("down").ok()
        assert all(map(is_gone, before))
        assert lab.left() == []


def test_down_after_a_kill_takes_the_second_switch_along():
    """Its daemons are children of nobody, its namespace was made by the forwarder; sockets go as well."""
    with Lab() as lab:
        lab.up(*BOTH)
        lab.apply(documents(PACKETS, client_box(COUNT))).ok()
        before = pids(lab)
        assert all(before)
        sockets = folder_of("packets", lab.state / "files")
        assert len(list(sockets.iterdir())) == COUNT
        pid = lab.daemon()
        os.kill(pid, signal.SIGKILL)
        until(lambda: is_gone(pid))
        lab.nsm("down").ok()
        assert all(map(is_gone, before))
        assert not sockets.exists()
        assert lab.left() == []
