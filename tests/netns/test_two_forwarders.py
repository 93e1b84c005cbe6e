"""Two forwarders on one node, of the kernel and of Open vSwitch: a match says whose wire a client gets."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import node_lab
import pytest
import vxlan_lab

from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import running
from nsmesh.model.messages import Destination, Match, Metadata, NetworkService

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]
KINDS = {"linux": "10.9.1.0", "ovs": "10.9.2.0"}
"""By the label of each forwarder, the address of the endpoint behind its wire."""


def forwarder(mesh, kind):
    """Start a forwarder whose label says what it is."""
    mesh.start(
        f"fwd-{kind}",
        mesh.spaces[1],
        "forwarder" if kind == "linux" else "forwarder-ovs",
        NSM_LISTEN_ON=mesh.url(f"fwd-{kind}"),
        NSM_CONNECT_TO=mesh.url("nsmgr1"),
        NSM_LABELS=f"p2p:true,forwarder:{kind}",
        NSM_JOURNAL=str(mesh.folder / f"fwd-{kind}.journal"),
        NSM_SWITCH_DIRECTORY=str(mesh.folder / "switch"),
    )


async def services(mesh):
    """Register a service for each forwarder, whose only match names it."""
    entries = (
        NetworkService(
            name=f"by-{kind}",
            matches=[Match(routes=[Destination()], metadata=Metadata(labels={"forwarder": kind}))],
        )
        for kind in KINDS
    )
    await node_lab.register(mesh, "nsmgr1", entries)


@pytest.fixture
def mesh():
    with node_lab.Mesh() as found:
        switch = OwnSwitch(found.folder / "switch", found.spaces[1])
        found.callback(lambda: asyncio.run(switch.stop()))
        found.registry()
        found.manager(1)
        for kind in KINDS:
            forwarder(found, kind)
            found.until_registered(f"fwd-{kind}")
        asyncio.run(services(found))
        for kind, address in KINDS.items():
            found.start(
                f"nse-{kind}",
                found.pods[2],
                "nse",
                "icmp-responder",
                NSM_CONNECT_TO=found.url("nsmgr1"),
                NSM_LISTEN_ON=found.url(f"nse-{kind}"),
                NSM_NETNS=found.pods[2],
                NSM_CIDR_PREFIX=f"{address}/24",
                NSM_SERVICE_NAMES=f"by-{kind}",
                NSM_REGISTER_SERVICE="false",
            )
            found.until(f"nse-{kind}", f'"name": "nse-{kind}".*"event": "registered"')
        found.client(1, NSM_NETWORK_SERVICES="kernel://by-linux/nsm-1,kernel://by-ovs/nsm-2")
        found.until("nsc", "all wires are up")
        yield found, switch


def test_a_match_chooses_the_forwarder(mesh):
    """Both wires carry pings; one is of the kernel alone, the other has its two ports at the switch."""
    found, switch = mesh
    for address in KINDS.values():
        assert vxlan_lab.pings(found.pods[1], address), address
    for kind in KINDS:
        assert found.log(f"fwd-{kind}").count('"event": "wire applied"') == 1
    (ports,) = asyncio.run(switch.ports.owners()).values()
    assert len(ports) == 2


def test_a_forwarder_killed_in_mid_traffic_loses_nothing_and_its_successor_keeps_the_switch(mesh):
    """Killed and started again under a ping: none is lost. A switch that dies then is back by itself."""
    found, switch = mesh
    ping = ["nsenter", f"--net={found.pods[1]}", "ping", "-i", "0.01", "-c", "300", "-q", KINDS["ovs"]]
    with subprocess.Popen(ping, stdout=subprocess.PIPE, text=True) as stream:
        node_lab.end(found.programs["fwd-ovs"])
        mark = len(found.log("fwd-ovs"))
        forwarder(found, "ovs")
        found.until("fwd-ovs", "forwarder ready", after=mark)
        said = stream.communicate(timeout=30)[0]
    assert "300 packets transmitted, 300 received" in said, found.log("fwd-ovs")[mark:]
    pid_file = Path(switch.directory / "ovs-vswitchd.pid")
    os.kill(running(pid_file, "ovs-vswitchd"), signal.SIGKILL)
    limit = time.monotonic() + 10
    while not vxlan_lab.pings(found.pods[1], KINDS["ovs"]):
        assert time.monotonic() < limit, found.log("fwd-ovs")[-3000:]
    assert "the switch is back" in found.log("fwd-ovs")[mark:]
