"""The example of the secure intranet, applied from nothing, edited, and shot at."""

import os
import signal
from pathlib import Path

import pytest
from mesh_lab import Lab, finish, is_gone, nsm, ping, until

from nsmesh.datapath import netns
from nsmesh.standalone.demo import fetch

pytestmark = pytest.mark.root

EXAMPLE = Path(__file__).parents[2] / "examples" / "secure-intranet"
SITE = "10.20.0.1"


@pytest.fixture(scope="module")
def mesh():
    """Apply the example in a mesh of separate processes, so that each of them can be killed alone."""
    with Lab() as lab:
        lab.up("--separate")
        done = lab.nsm("apply", "-f", str(EXAMPLE / "service.yaml"), "-f", str(EXAMPLE / "mesh.yaml")).ok()
        assert "wire nsm-1 to firewall up in" in done.out
        assert ping(client(lab), SITE, wait=0.5), "the first ping is lost"
        yield lab


def client(lab):
    return f"{lab.mesh}.client"


def page(lab, port):
    return fetch(f"/run/netns/{client(lab)}", SITE, port)


def works(lab):
    """Expect that the intranet answers pings and on port 8080, and that port 80 is refused."""
    until(lambda: ping(client(lab), SITE, wait=0.5), 15, lambda: "no pings")
    until(lambda: page(lab, 8080)[0], 10, lambda: str(page(lab, 8080)))
    assert page(lab, 80) == (False, "connection refused")


def path(lab):
    return next((row["path"] for row in lab.get("connections") if row["id"] == "client-0"), [])


def test_it_works(mesh):
    """Ping and port 8080 pass, port 80 is refused at once; there is one connection, with seven hops."""
    works(mesh)
    [row] = mesh.get("connections")
    manager, forwarder = f"nsmgr-{mesh.mesh}", f"forwarder-{mesh.mesh}"
    hops = ["client", manager, forwarder, "firewall", manager, forwarder, "vpn-gateway"]
    assert row["path"] == hops
    assert [hop["name"] for hop in row["hops"]] == hops
    described = mesh.nsm("describe", "connection", "client-0").ok().out
    for hop in hops:
        assert hop in described
    assert "client_interface" in described.lower().replace(" ", "_")


def kill(lab, pid):
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))


def pid_in(lab, name, program):
    """Return the pid of a program in the namespace of an object."""
    wanted = netns.identity(f"/run/netns/{lab.mesh}.{name}")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (
                netns.identity(f"{entry}/ns/net") == wanted
                and program == (entry / "comm").read_text().strip()
            ):
                return int(entry.name)
        except OSError:
            continue
    return None


@pytest.mark.parametrize("name", ["firewall", "vpn-gateway"])
def test_a_function_is_killed(mesh, name):
    """It is started again, status tells of it, and the wire works as before, with the same rules."""
    pid = mesh.row("endpoints", name)["pid"]
    kill(mesh, pid)
    until(
        lambda: mesh.row("endpoints", name)["state"] == "ready" and mesh.row("endpoints", name)["pid"] != pid
    )
    dead = mesh.status()["dead"][-1]
    assert {"name": name, "why": "killed by SIGKILL", "restarted": True}.items() <= dead.items()
    assert name in mesh.nsm("status").ok().out.partition("dead")[2]
    until(lambda: len(path(mesh)) == 7 and mesh.row("clients", "client")["state"] == "up", 20)
    works(mesh)


def test_wireguard_is_killed(mesh):
    """A tunnel in user space that dies is started again by its gateway."""
    pid = pid_in(mesh, "vpn-gateway", "wireguard-go")
    if pid is None:
        pytest.skip("this kernel has WireGuard itself")
    kill(mesh, pid)
    works(mesh)


@pytest.mark.parametrize("role", ["nsmgr", "forwarder"])
def test_a_role_is_killed(mesh, role):
    """The chain of functions stands through the death of manager and forwarder."""
    kill(mesh, next(row["pid"] for row in mesh.status()["roles"] if row["role"] == role))
    assert ping(client(mesh), SITE)
    until(lambda: len(path(mesh)) == 7 and mesh.row("clients", "client")["state"] == "up", 20)
    works(mesh)


def test_a_workload_is_killed(mesh):
    """A workload that is never restarted stays dead; its wire stays; status tells of both."""
    kill(mesh, mesh.row("clients", "client")["pid"])
    until(lambda: mesh.row("clients", "client")["state"] == "process killed by SIGKILL")
    assert mesh.status()["dead"][-1]["restarted"] is False
    works(mesh)


def test_the_firewall_is_taken_out(mesh):
    """After an edit of the service's matches the same wire leads to the gateway directly."""
    text = (EXAMPLE / "service.yaml").read_text().replace("app: firewall", "app: vpn-gateway")
    assert "updated: app=vpn-gateway -> app=vpn-gateway; any -> app=vpn-gateway" in mesh.apply(text).ok().out
    until(lambda: page(mesh, 80)[0], 10)
    until(lambda: path(mesh)[-1:] == ["vpn-gateway"] and len(path(mesh)) == 4)
    assert ping(client(mesh), SITE)


def test_down_is_clean(mesh):
    """Down takes all of it away in time, whatever was killed before."""
    done = mesh.nsm("down").ok()
    assert "removed" not in done.text
    assert mesh.left() == []


def test_the_demo(tmp_path):
    """The demo holds all its claims and leaves nothing."""
    with Lab() as lab:
        done = lab.nsm("demo").ok()
        assert "all claims hold" in done.out
        assert done.out.count("  ok  ") == 7
        assert "NO" not in done.out
        assert lab.left() == []
        assert not lab.state.exists()


def test_the_demo_is_interrupted():
    """Ctrl-C in the middle cleans up, with exit code 130."""
    with Lab() as lab:
        demo = lab.process("demo")
        until(lambda: lab.spaces() == ["client", "corporate", "firewall", "vpn-gateway"])
        demo.send_signal(signal.SIGINT)
        done = finish(demo).fails("interrupted", code=130)
        assert "cleaned up" in done.out
        assert lab.left() == []
        assert not lab.state.exists()


def test_demos_by_name():
    """The list of demos, a name that is none, and -q."""
    assert "secure-intranet" in nsm("demo", "--list").ok().out
    nsm("demo", "secure-internet").fails("there is no demo secure-internet", "secure-intranet")
