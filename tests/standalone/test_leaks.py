"""What a mesh forgets on its host is told by nsm status and counted; a mesh that is down leaves nothing."""

import asyncio
import socket
import subprocess
import urllib.request

import pytest
from mesh_lab import responder

from nsmesh.datapath import netns
from nsmesh.datapath.inventory import group_of
from nsmesh.datapath.leaks import KINDS
from nsmesh.standalone.leaks import left_behind
from nsmesh.standalone.paths import MeshPaths

pytestmark = pytest.mark.root


@pytest.mark.parametrize("mode", [(), ("--separate",)])
def test_a_planted_leak_is_told_and_nothing_else(lab, monkeypatch, mode):
    """An interface with our marks and a namespace with our name that nobody has, beside a living wire."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("PROMETHEUS", "true")
    monkeypatch.setenv("NSM_PROMETHEUS_LISTEN_ON", f"127.0.0.1:{port}")
    lab.up(*mode)
    lab.apply(responder()).ok()
    lab.nsm("connect", "kernel://ping/nsm-1", "--netns", lab.namespace("c")).ok()
    assert lab.status()["leaks"] == []

    paths = MeshPaths.of(lab.mesh, str(lab.run), str(lab.state))
    space = paths.netns("responder")
    (forwarder,) = lab.get("forwarders")
    group = group_of(paths.owner_of(forwarder["name"]))
    for argv in ("add ghost type veth peer name other", f"set ghost group {group} alias nsm:gone"):
        subprocess.run(["ip", "-n", space, "link", *argv.split()], check=True)
    lab.stack.callback(netns.delete, f"{lab.mesh}.stray")
    netns.create(f"{lab.mesh}.stray")
    leaks = {leak["name"]: (leak["kind"], leak["where"], leak["owner"]) for leak in lab.status()["leaks"]}
    assert leaks == {
        "ghost": ("interface", f"/run/netns/{space}", "gone"),
        f"{lab.mesh}.stray": ("namespace", f"/run/netns/{lab.mesh}.stray", ""),
    }
    assert "ghost" in lab.nsm("status").ok().out
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    told = {kind: any("nsmesh_leaks" in line and f'"{kind}"' in line for line in lines) for kind in KINDS}
    assert all(told.values())
    assert any('"namespace"' in line and line.endswith(" 1.0") for line in lines if "nsmesh_leaks" in line)

    netns.delete(f"{lab.mesh}.stray")
    lab.nsm("down").ok()
    assert asyncio.run(left_behind(paths, [f"/run/netns/{lab.mesh}-c"])) == []
