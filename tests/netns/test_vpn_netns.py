"""WireGuard on real interfaces: gateway and site in two namespaces, a client behind the gateway."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from endpoint_lab import Lab, Resident, http, ip, ping, run, until

from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.errors import Conflict
from nsmesh.core.metrics import DECLARED
from nsmesh.datapath.wireguard_text import wg_peers, wg_setconf
from nsmesh.endpoints import wireguard_keys
from nsmesh.endpoints.capture import MESSAGES, Report, capturing
from nsmesh.endpoints.vpn_gateway import VpnGateway
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.wireguard import Tunnel, TunnelPeer, generate

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no /dev/net/tun"),
]

SECRET = "the-plan-of-the-house"


@dataclass
class Vpn:
    lab: Lab
    client: str
    gateway: str
    site: str
    home: Resident
    element: VpnGateway
    process: subprocess.Popen[bytes]
    outer: Report

    def wireguard_pid(self) -> int:
        device = self.element._device
        assert device is not None
        return device.child.pid or 0

    def handshake(self) -> float | None:
        return self.home.call(self.element.peers())[0].last_handshake


def start_site(lab: Lab, space: str, folder: Path, gateway_key: str) -> subprocess.Popen[bytes]:
    config = {
        "title": SECRET,
        "interface": "wg0",  # the same name as at the gateway
        "private_key_file": str(folder / "site.key"),
        "addresses": ["10.200.0.1/24", "fd00:200::1/64"],
        "peers": [{"public_key": gateway_key, "allowed_ips": ["10.200.0.2/32", "fd00:200::2/128"]}],
    }
    path = folder / "site.yaml"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "nsmesh.endpoints.vpn_site", "--config", str(path)]
    process = lab.start(space, *command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "src"})
    assert process.stderr is not None
    lab.callback(process.stderr.close)
    said = b""
    while b"site ready" not in said:
        line = process.stderr.readline()
        said += line
        assert line, said.decode()
    return process


def leftovers() -> list[str]:
    """Return the wireguard-go processes that this test process started, and the sockets of the machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if command[0] == b"wireguard-go" and f"LAB={os.getpid()}".encode() in environment:
                found.append(entry.name)
    return found


@pytest.fixture
def vpn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vpn]:
    monkeypatch.setenv("LAB", str(os.getpid()))
    with Lab() as lab:
        client, gateway, site = (lab.namespace(label) for label in ("client", "gw", "site"))
        lab.veth(gateway, "wire", client, "nsm-1")
        lab.veth(gateway, "outer", site, "outer")
        for space, device, address in (
            (client, "nsm-1", "169.254.0.1/24"),
            (gateway, "wire", "169.254.0.2/24"),
            (gateway, "outer", "192.0.2.2/24"),
            (site, "outer", "192.0.2.1/24"),
        ):
            ip("-n", space, "addr", "add", address, "dev", device)
        ip("-n", client, "addr", "add", "fd00:1::1/64", "dev", "nsm-1", "nodad")
        ip("-n", gateway, "addr", "add", "fd00:1::2/64", "dev", "wire", "nodad")
        ip("-n", client, "route", "add", "10.200.0.0/24", "via", "169.254.0.2")
        ip("-n", client, "route", "add", "fd00:200::/64", "via", "fd00:1::2")
        ip("-n", client, "route", "add", "192.0.2.0/24", "via", "169.254.0.2")
        key = wireguard_keys.ensure(tmp_path / "gateway.key")
        process = start_site(lab, site, tmp_path, key.public)
        tunnel = Tunnel(
            name="wg0",
            private_key=key,
            addresses=("10.200.0.2/32", "fd00:200::2/128"),
            listen_port=51820,
            peers=(
                TunnelPeer(
                    wireguard_keys.read_public(tmp_path / "site.key.pub"),
                    "192.0.2.1:51820",
                    ("10.200.0.0/24", "fd00:200::/64"),
                    25,
                ),
            ),
        )
        home = lab.resident(gateway)
        element = VpnGateway(tunnel)
        element.scope = home.scope
        outer: Report = home.hold(capturing("outer", markers=[SECRET, "HTTP"]), lab)
        home.hold(element.running(), lab)
        yield Vpn(lab, client, gateway, site, home, element, process, outer)
    until(lambda: leftovers() == [])


def test_a_client_reaches_the_site_through_the_tunnel_and_nothing_is_in_clear(vpn: Vpn):
    """Ping and HTTP work; on the outer link there are WireGuard's packets alone, on the client's the text."""
    outer = vpn.outer
    inner: Report = vpn.home.hold(capturing("wire", markers=[SECRET, "HTTP"]), vpn.lab)
    until(lambda: ping(vpn.client, "10.200.0.1"))
    until(lambda: ping(vpn.client, "fd00:200::1"))
    for host in ("10.200.0.1", "[fd00:200::1]"):
        for port in (80, 8080):
            assert http(vpn.client, f"http://{host}:{port}/")[:2] == (0, f"{SECRET}, port {port}")
    until(lambda: outer.classes[MESSAGES[4]] > 20)
    assert inner.clear
    assert not outer.clear
    assert outer.others == {}
    assert outer.classes[MESSAGES[1]] >= 1
    assert outer.classes[MESSAGES[2]] >= 1
    assert outer.dropped == 0


def test_the_tunnel_tells_how_it_is(vpn: Vpn):
    """The last handshake is recent, and bytes are counted in both directions."""
    until(lambda: ping(vpn.client, "10.200.0.1"))
    peer = vpn.home.call(vpn.element.peers())[0]
    assert peer.last_handshake is not None
    assert abs(time.time() - peer.last_handshake) < 10
    assert peer.received > 100
    assert peer.sent > 100
    assert peer.endpoint == "192.0.2.1:51820"
    counted, shaken = (
        vpn.home.call(DECLARED[name].samples())
        for name in ("nsm_vpn_gateway_bytes", "nsm_vpn_gateway_handshake_seconds")
    )
    assert {one.labels["direction"] for one in counted if one.value > 100} == {"received", "sent"}
    assert abs(time.time() - max(one.value for one in shaken)) < 10


def test_clients_reach_nothing_but_what_is_behind_the_tunnel(vpn: Vpn):
    """The gateway does not lead a client onto its own outer link, and nobody from the site to a client."""
    assert not ping(vpn.client, "192.0.2.1")
    ip("-n", vpn.site, "route", "add", "169.254.0.0/24", "dev", "wg0")
    assert not ping(vpn.site, "169.254.0.1")


def test_tcp_is_told_a_segment_size_that_fits(vpn: Vpn):
    """A SYN that leaves the tunnel at the site says 1380 where the client said 1460."""
    source = (
        "import socket\n"
        "s = socket.create_server(('10.200.0.1', 9000))\n"
        "print('ready', flush=True)\n"
        "c, _ = s.accept()\n"
        "print(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), flush=True)\n"
    )
    ip("-n", vpn.site, "link", "set", "wg0", "mtu", "9000")
    server = vpn.lab.start(vpn.site, sys.executable, "-c", source, stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout as out:
        assert out.readline() == b"ready\n"
        run(vpn.client, sys.executable, "-c", "import socket; socket.create_connection(('10.200.0.1', 9000))")
        assert int(out.readline()) <= 1380


def test_a_killed_wireguard_comes_back(vpn: Vpn):
    """SIGKILL takes the interface away; it is back with its addresses, routes and keys, under another pid."""
    until(lambda: ping(vpn.client, "10.200.0.1"))
    first = vpn.wireguard_pid()
    os.kill(first, signal.SIGKILL)
    until(lambda: vpn.wireguard_pid() not in {0, first})
    until(lambda: ping(vpn.client, "10.200.0.1"))
    until(lambda: ping(vpn.client, "fd00:200::1"))
    until(lambda: vpn.element._device.child.restarts == 1)


def test_nothing_is_left_behind(vpn: Vpn):
    """SIGTERM ends the site with its interface and process; SIGKILL too; and there is no socket anywhere."""
    assert len(leftovers()) == 2
    assert not Path("/run/wireguard/wg0.sock").exists()
    vpn.process.terminate()
    assert vpn.process.wait(5) == 0
    until(lambda: len(leftovers()) == 1)
    assert "wg0" not in ip("-n", vpn.site, "link")
    again = start_site(
        vpn.lab, vpn.site, Path(vpn.process.args[-1]).parent, vpn.element._tunnel.private_key.public
    )
    assert len(leftovers()) == 2
    again.kill()
    again.wait()
    until(lambda: len(leftovers()) == 1)


def test_the_private_key_shows_nowhere(vpn: Vpn):
    """Neither on a command line nor in a representation; its file is for its owner alone."""
    folder = Path(vpn.process.args[-1]).parent
    secrets = [(folder / name).read_text().strip() for name in ("gateway.key", "site.key")]
    secrets += [wireguard_keys.decode(text, "key").hex() for text in secrets]
    lines = run(vpn.site, "ps", "-eww", "-o", "args").stdout + repr(vpn.element._tunnel)
    assert not any(secret in lines for secret in secrets)
    assert (folder / "gateway.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not shutil.which("wg"), reason="no wireguard-tools")
def test_the_tool_for_the_kernel_understands_our_texts(vpn: Vpn):
    """``wg``, spoken to as for the kernel's WireGuard, takes our configuration, and we read its listing."""
    until(lambda: ping(vpn.client, "10.200.0.1"))
    inside = ("nsenter", "--mount", "--target", str(vpn.wireguard_pid()))
    config = wg_setconf(vpn.element._tunnel)
    time.sleep(0.1)  # a second handshake within some 16 ms of the first would count as its replay
    wg = partial(subprocess.run, text=True, capture_output=True, check=False)
    done = wg([*inside, "wg", "setconf", "wg0", "/dev/stdin"], input=config)
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: ping(vpn.client, "10.200.0.1"))
    listing = wg([*inside, "wg", "show", "wg0", "dump"]).stdout
    said, known = wg_peers(listing)[0], vpn.home.call(vpn.element.peers())[0]
    assert (said.public_key, said.endpoint) == (known.public_key, known.endpoint)
    assert int(known.last_handshake or 0) == int(said.last_handshake or 1)
    assert said.received > 0


KERNEL = """
import asyncio, json, sys
from pathlib import Path
from nsmesh.endpoints import wireguard_keys
from nsmesh.model.wireguard import Tunnel, TunnelPeer, generate
from nsmesh.endpoints.wireguard_device import KernelDevice

async def main(name):
    key, other = generate(), generate().public
    peer = TunnelPeer(other, "192.0.2.9:5", ("10.9.0.0/16",))
    async with KernelDevice(Tunnel(name, key, ("10.200.0.9/32",), 5, peers=(peer,))).running() as device:
        print(json.dumps([str(await device.peers()), other, Path("/proc/net/route").read_text()]))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(not shutil.which("wg"), reason="no wireguard-tools")
def test_an_interface_of_the_kernel_is_configured_by_wg_and_deleted():
    """wireguard-go plays the kernel: an interface that is there, and that ``wg`` can speak to."""
    with Lab() as lab:
        space = lab.namespace("k")
        play = 'mount -t tmpfs tmpfs /var/run && wireguard-go "$0" 2>/dev/null && exec "$1" -c "$2" "$0"'
        argv = ["unshare", "--mount", "sh", "-c", play, "wgk", sys.executable, KERNEL]
        done = run(space, *argv)
        assert done.returncode == 0, done.stderr
        peers, other, routes = json.loads(done.stdout)
        assert other in peers
        assert "192.0.2.9:5" in peers
        assert "wgk\t0000090A" in routes
        assert "wgk" not in ip("-n", space, "link")


def test_clients_get_a_route_to_what_is_behind(vpn: Vpn):
    """The context of a connection has one route for each prefix, once, after refreshes too."""
    server = chain(vpn.element)
    request = NetworkServiceRequest(connection=Connection(id="c"))
    for _ in range(2):
        request.connection.CopyFrom(vpn.home.call(server.request(Call(), request)))
    routes = request.connection.context.ip_context.src_routes
    assert [route.prefix for route in routes] == ["10.200.0.0/24", "fd00:200::/64"]


def test_an_interface_of_another_kind_is_not_touched(vpn: Vpn):
    """A name that is taken by something else is a conflict, told in a sentence."""

    async def start() -> None:
        tunnel = Tunnel("outer", generate())
        element = VpnGateway(tunnel)
        element.scope = vpn.home.scope
        async with element.running():
            pass

    with pytest.raises(Conflict, match="an interface outer that is no WireGuard interface exists"):
        vpn.home.call(start())
    assert "outer" in ip("-n", vpn.gateway, "link")
