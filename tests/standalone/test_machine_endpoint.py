"""A virtual machine is the endpoint: its monitor listens, the switch connects, a kernel client pings it."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest
from machine_lab import lacks, made_image
from mesh_lab import Lab, is_gone, ping, until
from tiny_machine import Card, Machine, MachineError, addressing

from nsmesh.datapath.ovs_programs import running

ROOT = Path(__file__).parents[2]
ADDRESS = "172.16.17.0"
BOTH = ("--forwarders", "linux,ovs")
PATIENCE = 120
"""Seconds: a machine that is interpreted has its share of a busy host, no more."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(lacks()), reason=f"virtual machines: {lacks()}"),
]


def folder_of(lab):
    """Return the folder of the endpoint's machines and sockets."""
    digest = hashlib.sha256(f"{lab.state / 'files'} appliance".encode()).hexdigest()[:10]
    return Path(f"/run/nsm-machines-{digest}")


def test_a_machine_that_listens_is_an_endpoint_of_the_mesh():
    """Pings pass once it has booted, again after a SIGKILL of its switch, and on after one of the daemon.

    A machine ends with its connection, and nothing is left of it.
    """
    made_image()
    with Lab() as lab:
        lab.up(*BOTH)
        folder = folder_of(lab)
        lab.nsm("apply", "-f", str(ROOT / "examples" / "machine-endpoint")).ok()
        box = f"{lab.mesh}.app"

        def passes():
            until(
                lambda: ping(box, ADDRESS, wait=0.5),
                PATIENCE,
                lambda: lab.nsm("logs", "appliance").out[-3000:],
            )

        passes()
        row = lab.row("connections", "app-0")
        assert [hop for hop in row["path"] if "ovs" in hop]
        (socket,) = folder.glob("*.vhost")
        (machine,) = (Machine(path) for path in folder.iterdir() if path.is_dir())
        pid, booted = machine.pid, machine.run("cat /proc/sys/kernel/random/boot_id")
        dead = running(lab.run / "ovs" / "ovs-vswitchd.pid", "ovs-vswitchd")
        os.kill(dead, signal.SIGKILL)
        until(lambda: is_gone(dead))
        passes()
        killed = lab.daemon()
        os.kill(killed, signal.SIGKILL)
        until(lambda: is_gone(killed))
        lab.up(*BOTH)
        until(lambda: lab.row("connections", "app-0")["state"] == "up", 40)
        passes()
        assert machine.pid == pid
        assert machine.run("cat /proc/sys/kernel/random/boot_id") == booted
        lab.nsm("delete", "workload", "app").ok()
        until(lambda: is_gone(pid), 20)
        until(lambda: not socket.exists() and not machine.folder.exists(), 20)
        lab.nsm("down").ok()
        assert lab.left() == []
        until(lambda: not folder.exists())


def test_a_machine_that_connects_reaches_one_that_listens(tmp_path):
    """Both ends of the wire are sockets of the switch, and the whole mesh is between them."""
    made = made_image()
    with Lab() as lab:
        lab.up(*BOTH)
        lab.nsm("apply", "-f", str(ROOT / "examples" / "machine-endpoint")).ok()
        lab.nsm("delete", "workload", "app").ok()
        place = lab.namespace("x")
        lab.nsm("connect", "vhost-user://appliances", "--netns", place, "--name", "vm").ok()
        row = lab.row("connections", "vm-0")
        machine = Machine(tmp_path / "vm")

        def passes():
            def pinged():
                try:
                    return machine.run(f"ping -c 1 -W 1 {row['peer_address'][0].partition('/')[0]}")
                except MachineError:
                    return ""

            until(pinged, PATIENCE, lambda: lab.nsm("logs", "appliance").out[-3000:])

        try:
            machine.start(Card(row["socket"]), made)
            machine.run(" && ".join(addressing(row)))
            passes()
            dead = running(lab.run / "ovs" / "ovs-vswitchd.pid", "ovs-vswitchd")
            os.kill(dead, signal.SIGKILL)
            until(lambda: is_gone(dead))
            passes()
        finally:
            machine.kill()
        lab.nsm("disconnect", "vm-0").ok()
        until(lambda: not list(folder_of(lab).iterdir()), 20)
