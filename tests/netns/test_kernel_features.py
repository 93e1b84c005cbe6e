"""What the doctor says of this kernel is what the system's own tools say."""

import json
import os
import subprocess
import sys

import pytest

from nsmesh.datapath import netns
from nsmesh.standalone import features

pytestmark = pytest.mark.root

KINDS = {
    "veth": "link add dev0 type veth",
    "bridge": "link add dev0 type bridge",
    "vxlan": "link add dev0 type vxlan id 1 dstport 4789",
    "geneve": "link add dev0 type geneve id 1 remote 127.0.0.1",
    "gre": "link add dev0 type gretap local 127.0.0.1 remote 127.0.0.1",
    "wireguard": "link add dev0 type wireguard",
    "tun": "tuntap add dev t mode tun",
}
NETEM = "qdisc add dev lo root netem delay 1ms"
FEATURES = {one.name: one for one in features.FEATURES}


@pytest.mark.parametrize("name", KINDS)
def test_devices_that_ip_can_make(name):
    """A kind of device is there when ``ip`` can make one, and not when it cannot."""
    probe = features.wireguard if name == "wireguard" else FEATURES[name].probe
    why = features.in_namespace(probe)
    with netns.temporary(f"features-{os.getpid()}-{name}") as (path,):
        argv = ["ip", "-n", path.rpartition("/")[2], *KINDS[name].split()]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not why), f"ip: {done.stderr}, the probe: {why}"


def test_delays_that_tc_can_make():
    """The same for netem."""
    why = features.in_namespace(FEATURES["netem"].probe)
    with netns.temporary(f"features-{os.getpid()}-tc") as (path,):
        argv = ["tc", "-n", path.rpartition("/")[2], *NETEM.split()]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not why), f"tc: {done.stderr}, the probe: {why}"


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("seg6", "-6 route add fd09::/64 encap seg6 mode encap segs fd01::1 dev lo"),
        ("mpls", "route add 10.9.0.0/24 encap mpls 100 dev lo"),
    ],
)
def test_routes_that_ip_can_make(name, route):
    """The same for segment routing and labels."""
    why = features.in_namespace(FEATURES[name].probe)
    with netns.temporary(f"features-{os.getpid()}-{name}") as (path,):
        space = path.rpartition("/")[2]
        subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
        done = subprocess.run(
            ["ip", "-n", space, *route.split()], capture_output=True, text=True, check=False
        )
    assert (done.returncode == 0) == (not why), f"ip: {done.stderr}, the probe: {why}"


def test_without_any_program():
    """With an empty PATH the programs are missing, and the kernel is still asked; nothing is left behind."""
    before = netns.named()
    done = subprocess.run(
        [sys.executable, "-m", "nsmesh.cli.main", "doctor", "-o", "json"],
        env={**os.environ, "PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 1
    assert [found[name]["state"] for name in ("ip", "ping", "nft", "wireguard")] == ["missing"] * 4
    assert all(found[name]["remedy"].startswith("apt-get install") for name in ("ip", "ping", "nft"))
    assert found["veth"]["state"] == "ok"
    assert [name for name in netns.named() if "doctor" in name and name not in before] == []
