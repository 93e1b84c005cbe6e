"""Wires of a switch between memif and vhost-user: peers of one ring get what the polling thread sends."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest
from ovs_lab import (
    Echo,
    answering,
    held,
    kernel,
    killed,
    listening,
    needs_testpmd,
    pings,
    reflecting,
    sharing_memory,
    there,
    until,
    vhost,
)
from test_payload_sockets import machine

from nsmesh.core.errors import Unavailable
from nsmesh.datapath import ovs_memif, ovs_programs, ovs_switches
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.memif.peer import connect, listen
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_programs import running
from nsmesh.model.wire import MemifPort

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(150),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
    needs_testpmd,
]
SOURCE = b"\x02\x00\x00\x00\x00\x09"
KIND = 0x88B5
AT_ONCE = 64
"""Frames under way at most: a memif ring of the peer in Python has 256 slots."""
LENGTHS = (60, 61, 64, 127, 128, 590, 1024, 1500, 1513, 1514)


def numbered(number):
    """Return a frame of its own length, with bytes of its own."""
    head = b"\x02" * 6 + SOURCE + KIND.to_bytes(2) + number.to_bytes(4)
    return head + bytes((number + at) % 256 for at in range(LENGTHS[number % len(LENGTHS)] - len(head)))


class Stream:
    """Numbered frames that one end sends, and the other one sends back."""

    def __init__(self, far):
        self._far = far
        self.sent = 0

    async def begin(self):
        """Wait until a frame comes back: then both ends are there."""
        probe = b"\x02" * 6 + SOURCE + KIND.to_bytes(2) + b"\xff" * 46
        while not self._far.came:
            self._far.peer.send([probe])
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        self._far.came.clear()

    async def more(self, count, seconds=40):
        """Send so many more, as they come back; return what is wrong with what came."""
        limit = asyncio.get_running_loop().time() + seconds
        end = self.sent + count
        while len(self._far.came) < end and asyncio.get_running_loop().time() < limit:
            room = min(end - self.sent, AT_ONCE - (self.sent - len(self._far.came)))
            if room > 0:
                self.sent += self._far.peer.send(list(map(numbered, range(self.sent, self.sent + room))))
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)
        return self.wrong()

    def wrong(self):
        """Return which numbers were lost or changed, and what came that was not sent."""
        wanted, found = Counter(map(numbered, range(self.sent))), Counter(self._far.came)
        lost, more = wanted - found, found - wanted
        return [int.from_bytes(one[14:18], "big") for one in lost], list(more.elements())


async def lost(folder, far_end, count, queues=1):
    """Return what is wrong with so many frames that go from a machine to the other end and back."""
    async with machine(folder, Path(far_end.socket), SOURCE, queues=queues) as far:
        stream = Stream(far)
        await stream.begin()
        return await stream.more(count)


@asynccontextmanager
async def client(datapath, folder):
    """Have a memif client in Python that sends all back, and connects again whenever its wire ends."""
    del folder
    near = listening(datapath)
    async with reflecting(near.socket):
        yield near


@asynccontextmanager
async def endpoint(datapath, folder):
    """Have a memif endpoint in Python that listens, and sends all back."""
    del datapath
    path = folder / "nse.sock"
    listener = listen(str(path), lambda frame: frame)
    try:
        with held(path) as socket_path:
            yield MemifPort(socket_path, listens=True)
    finally:
        listener.close()


def _testpmd(folder, role, path):
    device = ("net_memif0", f"role={role}", "id=0", f"socket={path}", "socket-abstract=no")
    return Echo(folder, *device, mode="io")


@asynccontextmanager
async def client_of_dpdk(datapath, folder):
    """Have a testpmd of one ring that is a memif client, once the wire is there."""
    near = listening(datapath)

    yield near, lambda: _testpmd(folder, "client", near.socket)


@asynccontextmanager
async def endpoint_of_dpdk(datapath, folder):
    """Have a testpmd of one ring listen."""
    del datapath
    path = folder / "nse.sock"
    with _testpmd(folder, "server", path):
        await there(path)
        await asyncio.sleep(0.5)
        with held(path) as socket_path:
            yield MemifPort(socket_path, listens=True)


@pytest.mark.parametrize("peer", [client, endpoint, client_of_dpdk, endpoint_of_dpdk])
def test_frames_go_from_a_machine_to_a_memif_peer_of_one_ring_and_back(tmp_path, peer):
    """All of them, in each length, byte for byte, whoever listens; nothing is left after remove."""

    async def body(make, pod):
        datapath = make()
        far_end = vhost(datapath)
        async with keeping(datapath.switches), peer(datapath, tmp_path) as given:
            near, late = given if isinstance(given, tuple) else (given, nullcontext)
            wire = CrossConnect("w1", near, far_end)
            assert (await datapath.apply(wire)).outcome == "created"
            with late():
                async with machine(tmp_path / "vm", Path(far_end.socket), SOURCE) as far:
                    stream = Stream(far)
                    await stream.begin()
                    assert await stream.more(2000) == ([], [])
                    assert (await datapath.apply(wire)).outcome == "unchanged"
                    assert await stream.more(200) == ([], [])
            await datapath.remove("w1")
        assert await datapath.switch.ports.owners() == {}
        assert not list((datapath.switch.directory / "sockets").glob("x.*"))
        assert not list((datapath.switch.directory / "peers").glob("nsmo*"))
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_a_driver_that_starts_again_and_a_switch_that_is_killed(tmp_path):
    """The next driver finds the wire unchanged, and no frame is lost; a killed switch has it back unasked."""

    async def body(make, pod):
        first = make()
        far_end = vhost(first)
        async with client(first, tmp_path) as near:
            wire = CrossConnect("w1", near, far_end)
            await first.apply(wire)
            async with machine(tmp_path / "vm", Path(far_end.socket), SOURCE) as far:
                stream = Stream(far)
                await stream.begin()
                streaming = asyncio.ensure_future(stream.more(3000, 60))
                await asyncio.sleep(0.1)
                await first.aclose()
                second = make()
                async with keeping(second.switches):
                    assert await second.sweep(["w1"]) == []
                    assert (await second.apply(wire)).outcome == "unchanged"
                    assert not streaming.done()
                    assert await streaming == ([], [])
                    await killed(second)
            # testpmd's virtio device connects once
            assert await lost(tmp_path / "again", far_end, 300) == ([], [])
        assert await second.sweep([]) == []
        assert await second.switch.ports.owners() == {}
        await second.aclose()

    sharing_memory(tmp_path, body)


def test_a_machine_of_two_queues_and_a_memif_peer_of_one_ring(tmp_path):
    """Frames of both queues come, and go back by one."""

    async def body(make, pod):
        datapath = make()
        far_end = vhost(datapath, queues=2)
        async with keeping(datapath.switches), client(datapath, tmp_path) as near:
            await datapath.apply(CrossConnect("w1", near, far_end))
            assert await lost(tmp_path / "vm", far_end, 1000, queues=2) == ([], [])
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_each_such_wire_takes_three_places_and_further_ones_go_to_another_switch(tmp_path, monkeypatch):
    """With both of its ends, where they carry frames; a driver that starts again counts the same."""
    monkeypatch.setattr(ovs_switches, "MOST_MEMIF", 4)

    async def body(make, pod):
        datapath = make()
        near = [listening(datapath, f"{number}.memif") for number in range(4)]
        await datapath.apply(CrossConnect("w0", near[0], vhost(datapath, "0")))
        await datapath.apply(CrossConnect("w1", near[1], vhost(datapath, "1")))
        await datapath.apply(CrossConnect("w2", kernel(pod, 2), near[2]))

        async def found(driver):
            return [sorted(await switch.ports.owners()) for switch in driver.switches]

        assert await found(datapath) == [["w0", "w2"], ["w1"]]
        await datapath.aclose()
        datapath = make()
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w3", kernel(pod, 3), near[3]))
            assert await found(datapath) == [["w0", "w2"], ["w1", "w3"]]
            reflecting = connect(near[1].socket, lambda frame: frame)
            far_end = vhost(datapath, "1")
            assert await lost(tmp_path / "vm", far_end, 300) == ([], [])
            reflecting.close()
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_ten_such_wires_and_one_to_an_interface_fill_a_switch(tmp_path):
    """Asked for at once: all have the ports of DPDK that they need, and the next one is at another switch."""

    async def body(make, pod):
        datapath = make()
        full = [(listening(datapath, f"{at}.memif"), vhost(datapath, str(at))) for at in range(10)]
        async with keeping(datapath.switches):
            wires = [CrossConnect(f"w{at}", *ends) for at, ends in enumerate(full)]
            wires.append(CrossConnect("w10", kernel(pod), listening(datapath)))
            await asyncio.gather(*map(datapath.apply, wires))
            await datapath.apply(CrossConnect("w11", listening(datapath, "11.memif"), vhost(datapath, "11")))
            assert [len(await switch.ports.owners()) for switch in datapath.switches] == [11, 1]
            async with answering(listening(datapath).socket):
                assert await pings(pod)
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_the_other_end_of_a_memif_may_change_its_kind(tmp_path):
    """From an interface to a machine and back: the peer connects again, and has the rings that it needs."""

    async def body(make, pod):
        datapath = make()
        near, far_end = listening(datapath), vhost(datapath)
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            async with answering(near.socket):
                assert await pings(pod)
            async with client(datapath, tmp_path):
                await datapath.apply(CrossConnect("w1", near, far_end))
                assert await lost(tmp_path / "vm", far_end, 300) == ([], [])
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            async with answering(near.socket):
                assert await pings(pod)
            assert len((await datapath.switch.ports.owners())["w1"]) == 2
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_two_memif_peers_of_one_ring_by_the_switch(tmp_path):
    """One connects and one listens; they could meet without a switch, and need not."""

    async def body(make, pod):
        datapath = make()
        near = listening(datapath)
        async with keeping(datapath.switches), endpoint(datapath, tmp_path) as far_end:
            await datapath.apply(CrossConnect("w1", near, far_end))
            came = []
            peer = connect(near.socket, came.append)
            await asyncio.wait_for(peer.connected.wait(), 20)
            async with asyncio.timeout(30):
                while not came:
                    peer.send([numbered(0)])
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            came.clear()
            for number in range(100):
                assert peer.send([numbered(number)]) == 1
                await asyncio.sleep(0.002)
            await until(lambda: len(came) >= 100)
            assert came == list(map(numbered, range(100)))
            peer.close()
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_without_the_driver_that_keeps_it_to_one_ring_such_a_wire_is_refused(tmp_path, monkeypatch):
    """DPDK would take the memif alone, and frames would vanish: the error names what to install."""
    monkeypatch.setattr(ovs_memif, "DUMP", "net_absent")

    async def body(make, pod):
        datapath = make()
        with pytest.raises(Unavailable, match=r"rings.*librte-net-pcap"):
            await datapath.apply(CrossConnect("w1", listening(datapath), vhost(datapath)))
        assert await datapath.switch.ports.owners() == {}
        await datapath.apply(CrossConnect("w2", kernel(pod), listening(datapath)))
        async with answering(listening(datapath).socket):
            assert await pings(pod)
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_such_wires_that_come_and_go_leave_nothing_but_what_each_memif_leaves(tmp_path):
    """One descriptor each, as DPDK's memif does; no thread, no socket, no device of the pieces inside."""
    rounds = 20

    async def body(make, pod):
        datapath = make()
        wire = CrossConnect("w1", listening(datapath), vhost(datapath))
        await datapath.apply(wire)
        await datapath.remove("w1")
        pid = running(datapath.switch.directory / "ovs-vswitchd.pid", "ovs-vswitchd")

        def counted(what):
            return sum(1 for _ in Path(f"/proc/{pid}/{what}").iterdir())

        before = counted("fd"), counted("task")
        for _ in range(rounds):
            await datapath.apply(wire)
            await datapath.remove("w1")
        assert counted("fd") - before[0] <= rounds + 2
        assert counted("task") <= before[1] + 1
        assert await datapath.switch.ports.owners() == {}
        await datapath.aclose()

    sharing_memory(tmp_path, body)
