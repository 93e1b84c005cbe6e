"""A virtual machine and a memif peer on one wire of a mesh, whichever of them is the client."""

from __future__ import annotations

import asyncio
import os
import signal
from ipaddress import ip_address
from pathlib import Path

import pytest
from machine_lab import lacks, made_image
from mesh_lab import PACKETS, Lab, is_gone, until
from tiny_machine import Card, Machine, MachineError, addressing

from nsmesh.core.errors import MeshError
from nsmesh.datapath.memif.peer import connect
from nsmesh.datapath.ovs_programs import running

ROOT = Path(__file__).parents[2]
BOTH = ("--forwarders", "linux,ovs")
PATIENCE = 90
"""Seconds: a machine that is interpreted has its share of a busy host, no more."""
MAC = bytes.fromhex("020000000001")

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(lacks()), reason=f"virtual machines: {lacks()}"),
]


def killed(pid):
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid), 30)


def killed_switch(lab):
    """Kill the switch, and wait until another one runs."""
    pid = switch(lab)
    os.kill(pid, signal.SIGKILL)
    until(lambda: switch(lab) not in {0, pid}, 30)


def switch(lab):
    return running(lab.run / "ovs" / "ovs-vswitchd.pid", "ovs-vswitchd")


def reaches(machine, address):
    """Wait until a machine's ping comes back."""

    def pinged():
        try:
            return machine.run(f"ping -c 1 -W 1 {address}")
        except MachineError:
            return False

    until(pinged, PATIENCE)


def test_a_machine_is_the_client_of_a_memif_endpoint(tmp_path):
    """Its pings come back, also after the switch, and after the daemon of the mesh, was killed."""
    made = made_image()
    machine = Machine(tmp_path)
    with Lab() as lab:
        lab.up(*BOTH)
        lab.apply(PACKETS).ok()
        place = lab.namespace("x")
        lab.nsm("connect", "vhost-user://shared-memory", "--netns", place, "--name", "box").ok()
        row = lab.row("connections", "box-0")
        (peer,) = row["peer_address"]
        address = peer.partition("/")[0]
        try:
            machine.start(Card(row["socket"]), made)
            machine.run(" && ".join(addressing(row)))
            reaches(machine, address)
            killed_switch(lab)
            reaches(machine, address)
            machine.run(f"(ping -i 0.05 {address} >/pings 2>&1 &)")
            killed(lab.daemon())
            lab.up(*BOTH)
            until(lambda: lab.row("connections", "box-0")["state"] == "up", PATIENCE)
            reaches(machine, address)
            assert lab.status()["audit"] == []
        finally:
            machine.kill()
        lab.nsm("disconnect", "box-0").ok()
        lab.nsm("down").ok()
        assert lab.left() == []


def asked(path, own, target):
    """Return whether a memif client at a socket is told by ARP who has an address."""

    async def ask():
        told = asyncio.Event()
        peer = connect(path, lambda frame: told.set() if frame[12:14] == b"\x08\x06" else None)
        try:
            await asyncio.wait_for(peer.connected.wait(), 10)
            question = bytes.fromhex("0001080006040001") + MAC + ip_address(own).packed
            question += bytes(6) + ip_address(target).packed
            for _ in range(20):
                peer.send([b"\xff" * 6 + MAC + b"\x08\x06" + question])
                try:
                    await asyncio.wait_for(told.wait(), 0.5)
                except TimeoutError:
                    continue
                return True
            return False
        finally:
            peer.close()

    try:
        return asyncio.run(ask())
    except (OSError, TimeoutError, MeshError):  # the socket of a switch that was killed
        return False


def test_a_machine_is_the_endpoint_of_a_memif_client():
    """It answers there; also after the switch was killed, and the socket is gone with the connection."""
    made_image()
    with Lab() as lab:
        lab.up(*BOTH)
        folder = ROOT / "examples" / "machine-endpoint"
        lab.nsm("apply", "-f", str(folder)).ok()
        place = lab.namespace("x")
        lab.nsm("connect", "memif://appliances", "--netns", place, "--name", "laptop").ok()
        row = lab.row("connections", "laptop-0")
        assert row["mechanism"] == "MEMIF"
        own, target = (row[key][0].partition("/")[0] for key in ("address", "peer_address"))
        until(lambda: asked(row["socket"], own, target), PATIENCE)
        killed_switch(lab)
        until(lambda: asked(row["socket"], own, target), PATIENCE)
        lab.nsm("disconnect", "laptop-0").ok()
        until(lambda: not os.path.lexists(row["socket"]), 30)
        lab.nsm("down").ok()
        assert lab.left() == []
