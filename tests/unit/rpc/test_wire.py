"""The wire on real sockets: bytes in order, descriptors beside them, ends without loss or leak."""

import asyncio
import os
import socket

import pytest
from rpc_helpers import Authority, open_descriptors

from nsmesh import rpc
from nsmesh.core.errors import Invalid, NotFound, TimedOut, Unavailable
from nsmesh.rpc.descriptors import Descriptors
from nsmesh.rpc.tls import Tls
from nsmesh.rpc.wire import Wire


class Ear:
    """Hears what a wire says."""

    def __init__(self):
        self.data = bytearray()
        self.open = asyncio.Event()
        self.end = asyncio.Event()
        self.drained = asyncio.Event()
        self.reason = None

    def opened(self):
        self.open.set()

    def received(self, data):
        self.data += data

    def writable(self):
        self.drained.set()

    def lost(self, reason):
        self.reason = reason
        self.end.set()

    async def until(self, size):
        while len(self.data) < size:  # noqa: ASYNC110 - a test's patience
            await asyncio.sleep(0.001)


def wires(limits=None, identities=(None, None), sockets=None):
    """Return two wires back to back, their ears and their descriptor tables."""
    limits = limits or rpc.Limits()
    made = []
    for number, sock in enumerate(sockets or socket.socketpair()):
        sock.settimeout(0)
        identity = identities[number]
        tls = Tls(identity, server=bool(number)) if identity else None
        table = Descriptors()
        ear = Ear()
        made.append(
            (Wire(sock, ear, where=f"end {number}", limits=limits, descriptors=table, tls=tls), ear, table)
        )
    for wire, _, _ in made:
        wire.start()
        wire.established()
    return made


def leak_free(main):
    before = open_descriptors()
    asyncio.run(main())
    assert open_descriptors() == before


def split(url):
    return tuple(int(part) for part in url.removeprefix("inode://").split("/"))


@pytest.fixture
def identities(tmp_path):
    authority = Authority()
    return authority.identity("one", tmp_path), authority.identity("two", tmp_path)


@pytest.mark.parametrize("secure", [False, True])
def test_bytes_pass_in_order_through_a_slow_socket(secure, identities):
    """Megabytes written at once arrive whole and in order, and the writer hears when all went."""

    async def main():
        (one, ear, _), (two, other, _) = wires(identities=identities if secure else (None, None))
        await asyncio.gather(ear.open.wait(), other.open.wait())
        data = os.urandom(3 << 20)
        one.write(data)
        one.write(b"end")
        assert one.buffered > 0
        await other.until(len(data) + 3)
        assert other.data == data + b"end"
        await ear.drained.wait()
        assert one.buffered == 0
        one.close()
        await asyncio.gather(one.gone(), two.gone())

    leak_free(main)


@pytest.mark.parametrize("secure", [False, True])
def test_descriptors_travel_with_the_bytes(secure, identities, tmp_path):
    """Each descriptor arrives, at either end, found by its inode URL; the bytes are unchanged."""

    async def main():
        (one, ear, table), (two, other, far) = wires(identities=identities if secure else (None, None))
        await asyncio.gather(ear.open.wait(), other.open.wait())
        urls = []
        for number in range(100):
            (tmp_path / str(number)).touch()
            urls.append(one.send_fd(str(tmp_path / str(number))))
        one.write(bytes(range(256)))
        one.write(b"more bytes " * 10)
        await other.until(256 + 110)
        assert other.data == bytes(range(256)) + b"more bytes " * 10
        deadline = asyncio.get_running_loop().time() + 5
        for url in urls:
            fd = await far.view(two.peer).wait(*split(url), deadline)
            assert (os.fstat(fd).st_dev, os.fstat(fd).st_ino) == split(url)
            os.close(fd)
        back = two.send_fd("/proc/self/ns/net")
        two.write(b"answer")
        os.close(await table.view(one.peer).wait(*split(back), deadline))
        one.close()
        await asyncio.gather(one.gone(), two.gone())
        table.close()
        far.close()

    leak_free(main)


def test_descriptors_wait_behind_a_full_socket(tmp_path):
    """A descriptor queued while the socket is full goes with the bytes that follow, and none is lost."""

    async def main():
        (one, _, _), (two, other, far) = wires()
        one.write(bytes(1 << 20))
        url = one.send_fd(str(tmp_path))
        one.write(b"named")
        await other.until((1 << 20) + 5)
        os.close(await far.view(two.peer).wait(*split(url), asyncio.get_running_loop().time() + 5))
        one.close()
        await asyncio.gather(one.gone(), two.gone())
        far.close()

    leak_free(main)


def test_unsent_descriptors_are_closed_with_the_wire(tmp_path):
    """What was queued and never sent leaves nothing open; what came is closed with the table."""

    async def main():
        (one, _, _), (two, _, far) = wires()
        one.send_fd(str(tmp_path))
        one.close()
        with pytest.raises(Unavailable):
            one.send_fd(str(tmp_path))
        await asyncio.gather(one.gone(), two.gone())
        assert len(far) == 0

    leak_free(main)


def test_a_missing_file_is_not_found_and_tcp_is_invalid(tmp_path):
    """A file that is not there, and a hop that cannot carry descriptors, are told apart."""

    async def main():
        (one, _, _), (two, _, _) = wires()
        with pytest.raises(NotFound):
            one.send_fd(str(tmp_path / "none"))
        one.close()
        await asyncio.gather(one.gone(), two.gone())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            (one, _, _), (two, _, _) = wires(sockets=(near, listener.accept()[0]))
            assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            with pytest.raises(Invalid, match="only unix sockets"):
                one.send_fd(str(tmp_path))
            assert one.peer.uid is None
            one.close()
            await asyncio.gather(one.gone(), two.gone())

    leak_free(main)


def test_the_peer_is_known(identities):
    """Credentials come from the unix socket, SPIFFE ID and certificate from TLS."""

    async def main():
        (one, ear, _), (two, other, _) = wires(identities=identities)
        await asyncio.gather(ear.open.wait(), other.open.wait())
        for wire, identity in ((one, identities[1]), (two, identities[0])):
            peer = wire.peer
            assert (peer.spiffe_id, peer.certificate) == (identity.spiffe_id, identity.der)
            assert (peer.uid, peer.gid, peer.pid) == (os.getuid(), os.getgid(), os.getpid())
        two.close()
        await asyncio.gather(one.gone(), two.gone())

    leak_free(main)


def test_many_descriptors_in_one_message_are_taken(tmp_path):
    """A sender may put up to 64 descriptors into one message; all are taken."""

    async def main():
        near, far = socket.socketpair()
        wire, ear, table = wires(sockets=(near, socket.socketpair()[1]))[0]
        files = []
        for number in range(64):
            (tmp_path / str(number)).touch()
            files.append(os.open(tmp_path / str(number), os.O_PATH))
        socket.send_fds(far, [b"x"], files)
        await ear.until(1)
        assert len(table) == 64
        for file in files:
            os.close(file)
        far.close()
        await wire.gone()
        table.close()

    before = open_descriptors()
    asyncio.run(main())
    import gc

    gc.collect()
    assert open_descriptors() == before


def test_descriptors_before_the_handshake_are_closed(tmp_path, identities):
    """Who has not shown a certificate gets no descriptor into the table."""

    async def main():
        near, far = socket.socketpair()
        near.settimeout(0)
        table, ear = Descriptors(), Ear()
        tls = Tls(identities[0], server=True)
        wire = Wire(near, ear, where="x", limits=rpc.Limits(), descriptors=table, tls=tls)
        wire.start()
        file = os.open(tmp_path, os.O_PATH)
        socket.send_fds(far, [b"\x16"], [file])
        os.close(file)
        await asyncio.sleep(0.01)
        assert len(table) == 0
        far.close()
        await wire.gone()
        assert isinstance(ear.reason, Unavailable)

    leak_free(main)


def test_the_handshake_has_a_time():
    """A peer that says nothing is dropped when the time for the handshake is over."""

    async def main():
        near, far = socket.socketpair()
        near.settimeout(0)
        ear = Ear()
        limits = rpc.Limits(handshake=0.02)
        wire = Wire(near, ear, where="somebody", limits=limits, descriptors=Descriptors(), tls=None)
        wire.start()
        await asyncio.wait_for(ear.end.wait(), 10)
        assert "somebody did not finish its handshake within 0.02 s" in str(ear.reason)
        await wire.gone()
        far.close()

    leak_free(main)


def test_the_last_bytes_arrive_before_the_end():
    """What was written before ``close`` arrives, also when it did not fit into the socket."""

    async def main():
        (one, ear, _), (two, other, _) = wires()
        one.write(bytes(2 << 20))
        one.close()
        assert ear.end.is_set()
        await other.end.wait()
        assert len(other.data) == 2 << 20
        await asyncio.gather(one.gone(), two.gone())

    leak_free(main)


def test_a_peer_that_never_closes_is_left_after_a_second():
    """A closing wire does not wait for ever for a peer that does not close."""

    async def main():
        near, far = socket.socketpair()
        near.settimeout(0)
        wire = Wire(near, Ear(), where="x", limits=rpc.Limits(), descriptors=Descriptors(), tls=None)
        wire.start()
        wire.close()
        began = asyncio.get_running_loop().time()
        await wire.gone()
        assert 0.5 < asyncio.get_running_loop().time() - began < 2
        far.close()

    leak_free(main)


def test_a_missing_descriptor_is_awaited_to_the_deadline():
    """An inode that never comes fails at the deadline of the call, not before and not never."""

    async def main():
        (one, _, _), (two, _, far) = wires()
        with pytest.raises(TimedOut):
            await far.view(two.peer).wait(1, 2, asyncio.get_running_loop().time() + 0.02)
        one.abort(Unavailable("test"))
        await asyncio.gather(one.gone(), two.gone())

    leak_free(main)
