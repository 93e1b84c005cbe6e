"""Packets that run over a wire for as long as a test needs, counted one by one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import lab_cluster as lab

PORT = 9009
RATE = 200
"""Datagrams a second."""
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.bind(("", {port}))
while True:
    data, peer = s.recvfrom(64)
    try:
        s.sendto(data, peer)
    except OSError:
        pass
"""
SEND = """
import json, os, select, signal, socket, time
running, sent, failed, seen, gap = True, 0, 0, set(), 0.0
def end(*_):
    global running
    running = False
signal.signal(signal.SIGTERM, end)
open("/tmp/stream.pid", "w").write(str(os.getpid()))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.setblocking(False)
def drain(until):
    global last, gap
    while (left := until - time.monotonic()) > 0:
        if not select.select([s], [], [], left)[0]:
            return
        try:
            while True:
                seen.add(int(s.recv(64)))
                now = time.monotonic()
                gap, last = max(gap, now - last), now
        except OSError:
            pass
begun = last = time.monotonic()
while running:
    try:
        s.sendto(b"%d" % sent, ("{address}", {port}))
    except OSError:
        failed += 1
    sent += 1
    drain(begun + sent / {rate})
drain(time.monotonic() + 1.0)
lost = sorted(set(range(sent)) - seen)
found = dict(sent=sent, lost=len(lost), failed=failed, gap=gap, first=lost[:1], last=lost[-1:])
json.dump(found, open("/tmp/stream", "w"))
"""


ADDRESS = "172.16.1.100"
"""Of the endpoint, on its wire."""
LIFETIME = 120.0
"""Seconds that tokens live in the mesh under test: wires are refreshed after a fifth of it."""


@dataclass
class Wire:
    """A wire of the pod ``nsc`` on node 1 to the pod ``nse``, and what its interfaces were at first."""

    namespace: str
    service: str
    address: str = ADDRESS
    client: str = "nsc"
    endpoint: str = "nse"
    first: list[tuple[str, ...]] = field(default_factory=list)

    def interfaces(self) -> list[tuple[str, ...]]:
        """Return index, MAC and addresses of both ends, and how often their containers were restarted."""
        found = []
        for pod, name in ((self.client, "nsm-1"), (self.endpoint, "")):
            shown = json.loads(
                lab.inside(self.namespace, pod, "ip", "-j", "address", "show", *([name] if name else []))
            )
            for one in shown:
                addresses = [
                    f"{each['local']}/{each['prefixlen']}"
                    for each in one["addr_info"]
                    if each["scope"] == "global"
                ]
                found.append((pod, one["ifname"], str(one["ifindex"]), one["address"], *addresses))
            found.append((pod, "restarts", str(lab.restarts_of(self.namespace, pod))))
        return found

    def unchanged(self) -> None:
        """Demand that both ends are what they were at first, and that nobody was restarted."""
        now = self.interfaces()
        assert now == self.first, f"now {now}, at first {self.first}"

    def refreshed(self) -> None:
        """Wait until the client has refreshed its wire, all the way, and look at the interfaces."""
        time.sleep(LIFETIME / 5 + 3)
        self.unchanged()


def wired(namespace: str, far: int) -> Wire:
    """Set up a wire from node 1 to an endpoint on node ``far``."""
    wire = Wire(namespace, f"icmp-{namespace}")
    lab.create(namespace, lab.responder("nse", far, f"{ADDRESS}/31", wire.service))
    lab.ready(namespace, "nse")
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{wire.service}/nsm-1"))
    lab.ready(namespace, "nsc")
    lab.until("the wire", lambda: lab.pings(namespace, "nsc", ADDRESS), 10)
    wire.first = wire.interfaces()
    return wire


@dataclass
class Stream:
    """A ping every 100 ms and numbered datagrams with their echo; counts are known when it has ended.

    ``lost`` is what was sent and never came back, ``gap`` the longest silence in seconds. The last ping, for
    whose answer nobody waited, is not counted.
    """

    wire: Wire
    sent: int = 0
    lost: int = 0
    pings: int = 0
    pings_lost: int = 0
    gap: float = 0.0
    detail: str = ""

    def _python(self, pod: str, text: str, *, background: bool = False) -> str:
        """Run a program with the image's Python, in the container of ours."""
        container = "nse" if pod == self.wire.endpoint else "nsc"
        launch = (
            "import subprocess,sys;"
            "subprocess.Popen([sys.executable,'-c',sys.argv[1]],stdin=subprocess.DEVNULL,"
            "stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL,start_new_session=True)"
        )
        words = (launch, text) if background else (text,)
        return lab.python(self.wire.namespace, pod, container, *words)

    def begin(self) -> None:
        """Start both."""
        values = {"port": str(PORT), "address": self.wire.address, "rate": str(RATE)}
        echo, send = ECHO, SEND
        for name, value in values.items():
            echo, send = echo.replace(f"{{{name}}}", value), send.replace(f"{{{name}}}", value)
        self._python(self.wire.endpoint, echo, background=True)
        self._python(self.wire.client, send, background=True)
        command = f"ping -i 0.1 {self.wire.address} >/stream 2>&1 & echo $! >/stream.pid"
        lab.inside(self.wire.namespace, self.wire.client, "sh", "-c", command)

    def end(self) -> None:
        """Stop both, and count."""
        stop = (
            "import json,os,time;os.path.exists('/tmp/stream') and os.remove('/tmp/stream');"
            "os.kill(int(open('/tmp/stream.pid').read()),15);time.sleep(2);print(open('/tmp/stream').read())"
        )
        found = json.loads(self._python(self.wire.client, stop))
        self.sent, self.lost, self.gap = found["sent"], found["lost"], found["gap"]
        self.detail = f"failed to send {found['failed']}, lost from {found['first']} to {found['last']}"
        lab.inside(
            self.wire.namespace, self.wire.client, "sh", "-c", "kill -INT $(cat /stream.pid); sleep 0.5"
        )
        text = lab.inside(self.wire.namespace, self.wire.client, "cat", "/stream")
        seen = {int(number) for number in re.findall(r"seq=(\d+)", text)}
        assert seen, text[-300:]
        missing = sorted(set(range(max(seen) + 1)) - seen)
        self.pings, self.pings_lost = max(seen) + 1, len(missing)
        self.detail += f"; pings missing {missing[:5]}"


@contextmanager
def streamed(wire: Wire, what: str) -> Iterator[Stream]:
    """Run a stream from a client to an endpoint; prints what it lost."""
    stream = Stream(wire)
    stream.begin()
    time.sleep(1)
    yield stream
    time.sleep(1)
    stream.end()
    print(  # noqa: T201 - a figure, shown by -s
        f"\n{what}: {stream.lost} of {stream.sent} datagrams lost, "
        f"longest silence {stream.gap * 1000:.0f} ms; {stream.pings_lost} of {stream.pings} "
        f"pings lost ({stream.detail})"
    )
