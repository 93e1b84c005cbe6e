"""Probing a wire: who is there answers, who is not does not, and nothing stays behind."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from endpoint_lab import Lab, ip, until

from nsmesh.chains.liveness import carrier
from nsmesh.datapath import probe
from nsmesh.datapath.probe import answers, running
from nsmesh.model.messages import KERNEL, MEMIF, Connection, Mechanism

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def pair():
    with Lab() as lab:
        one, two = lab.namespace("one"), lab.namespace("two")
        lab.veth(one, "eth0", two, "eth0")
        for space, last in ((one, 1), (two, 2)):
            ip("-n", space, "addr", "add", f"192.0.2.{last}/32", "dev", "eth0")
            ip("-n", space, "addr", "add", f"2001:db8::{last}/128", "dev", "eth0", "nodad")
        yield f"/run/netns/{one}", two


def ask(place, source, target, interface="eth0", seconds=0.3, frames=True):
    begin = time.monotonic()
    found = asyncio.run(answers(place, interface, source, target, seconds, frames=frames))
    return found, time.monotonic() - begin


@pytest.fixture(scope="module")
def routes(pair):
    """Let each know by way of which interface the other is."""
    place, two = pair
    one = place.rpartition("/")[2]
    for space, other in ((one, 2), (two, 1)):
        for address in (f"192.0.2.{other}", f"2001:db8::{other}"):
            ip("-n", space, "route", "add", address, "dev", "eth0")


@pytest.mark.usefixtures("routes")
@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize(("source", "target"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
def test_who_is_there_answers_at_once(pair, source, target, frames):
    """The neighbour answers, over IPv4 and IPv6, asked for its link or an echo, and that is all the time."""
    there, took = ask(pair[0], source, target, seconds=10, frames=frames)
    assert there
    assert took < 5


@pytest.mark.parametrize(
    ("source", "target", "interface"),
    [
        ("192.0.2.1", "192.0.2.9", "eth0"),
        ("2001:db8::1", "2001:db8::9", "eth0"),
        ("192.0.2.1", "2001:db8::2", "eth0"),
        ("192.0.2.1", "192.0.2.2", "eth7"),
        ("2001:db8::1", "2001:db8::2", "eth7"),
        ("2001:db8::7", "2001:db8::2", "eth0"),
        ("", "192.0.2.2", "eth0"),
    ],
)
def test_who_is_not_there_does_not_answer(pair, source, target, interface):
    """Unknown addresses and interfaces, mixed versions: false, and no error."""
    assert not ask(pair[0], source, target, interface)[0]
    assert not ask("/run/netns/no-such", source, target, interface)[0]


def test_a_wire_that_is_cut_does_not_run(pair):
    """An interface runs while it and its other end are up; probing a dead one is false."""
    place, two = pair
    assert running(place, "eth0")
    assert not running(place, "eth7")
    assert not running("/run/netns/no-such", "eth0")
    wires = [
        Connection(mechanism=Mechanism(type=kind, parameters={"name": "eth0"})) for kind in (KERNEL, MEMIF)
    ]
    carries = carrier(lambda: place)
    assert [carries(wire) for wire in wires] == [True, True]
    ip("-n", two, "link", "set", "eth0", "down")
    try:
        until(lambda: not running(place, "eth0"))  # the kernel notes it within a second
        assert [carries(wire) for wire in wires] == [False, True]  # nobody can tell of the second one
        assert not ask(place, "192.0.2.1", "192.0.2.2")[0]
    finally:
        ip("-n", two, "link", "set", "eth0", "up")


ASKED = """
import sys
from nsmesh.chains.liveness import carrier
from nsmesh.datapath import probe
from nsmesh.model.messages import KERNEL, Connection, Mechanism

for place, name in (("", "eth0"), ("", "none"), (sys.argv[1], "eth0"), (sys.argv[1] + "-gone", "eth0")):
    wire = Connection(mechanism=Mechanism(type=KERNEL, parameters={"name": name}))
    print(carrier(lambda: place)(wire))
"""


def test_a_client_without_rights_condemns_no_wire(pair):
    """It asks its own namespace, as in a pod; of another that it may not enter it cannot tell."""
    place, _ = pair
    without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]
    told = subprocess.run(
        ["nsenter", f"--net={place}", *without, sys.executable, "-c", ASKED, place],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["True", "False", "True", "False"]


def test_it_waits_for_an_answer_that_comes_late(pair):
    """A neighbour that appears while it is asked for is found soon after."""
    place, two = pair

    async def late():
        ip("-n", two, "link", "set", "eth0", "arp", "off")
        asyncio.get_running_loop().call_later(0.2, ip, "-n", two, "link", "set", "eth0", "arp", "on")
        begin = time.monotonic()
        assert await answers(place, "eth0", "192.0.2.1", "192.0.2.2", 10)
        return time.monotonic() - begin

    assert 0.15 < asyncio.run(late()) < 5


def test_no_descriptor_stays(pair):
    """Neither an answer nor silence leaves a descriptor open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for target in ("192.0.2.2", "192.0.2.9"):
        for _ in range(3):
            ask(pair[0], "192.0.2.1", target, seconds=0.05)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class Slow:
    """A question whose answer comes from elsewhere, two milliseconds later."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.settimeout(0)

    def send(self, _sock):
        threading.Timer(0.002, self.theirs.send, (b"here",)).start()

    def answered(self, data):
        return data == b"here"


def test_a_process_that_is_busy_hears_the_answer_too(monkeypatch):
    """What came in while it did something else counts, though the time for it is over when it looks."""
    slow = Slow()
    monkeypatch.setattr(probe, "_opened", lambda *_, **__: (slow, slow.ours))

    async def busy():
        while True:
            time.sleep(0.06)  # noqa: ASYNC251 - longer than the time between two questions
            await asyncio.sleep(0)

    async def look():
        other = asyncio.create_task(busy())
        try:
            return await answers("/proc/self/ns/net", "lo", "192.0.2.1", "192.0.2.2", 0.1)
        finally:
            other.cancel()

    with slow.theirs:
        assert asyncio.run(look())
        time.sleep(0.05)  # for the last answer
