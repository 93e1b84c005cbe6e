"""Peers of the field's own making, grpc-go and go-spiffe, against our gRPC and our Workload API."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from nsmesh import rpc
from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core.errors import Remote, Status, TimedOut, Unauthorized, Unavailable, Unimplemented
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import Entries, Entry
from nsmesh.security.svid import SvidSource
from nsmesh.security.workload_api import WorkloadApi

FOLDER = Path(__file__).with_name("go")
DOMAIN = "interop.nsm"
REFUSAL = "no sufficient privileges: ünïcode 100%"


@pytest.fixture(scope="session")
def peer(go_build):
    """Give the program of the Go peers."""
    return go_build(FOLDER, ".", "peer")


class World:
    """A Workload API, our identity, and Go processes with theirs."""

    def __init__(self, folder, program, stack):
        self.folder = folder
        self.program = program
        self.stack = stack
        self.ca = CertificateAuthority.open(folder / "ca", DOMAIN)
        self.entries = Entries()
        self.api = WorkloadApi(self.ca, self.entries)
        self.api_url = f"unix://{folder}/api.sock"
        self.source = SvidSource(self.ca.issue(f"spiffe://{DOMAIN}/ours"), [self.ca.bundle()])
        self.started = 0

    async def serve_api(self):
        return await self.stack.enter_async_context(served_workload_api(self.api, self.api_url))

    async def go(self, *arguments):
        process = await asyncio.create_subprocess_exec(
            self.program, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self.started += 1
        spiffe_id = f"spiffe://{DOMAIN}/go-{self.started}"
        self.entries.register(Entry(frozenset({f"nsm:pid:{process.pid}"}), spiffe_id))
        self.stack.push_async_callback(_end, process)
        return process

    def rotate(self):
        """Issue everybody anew: the API's callers, and ourselves."""
        self.source.update(self.ca.issue(f"spiffe://{DOMAIN}/ours"), [self.ca.bundle()])
        self.api._issued.clear()
        self.entries.announce()


async def _end(process):
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 5)
    except TimeoutError:
        process.kill()
        await process.wait()


async def heard(process, seconds=20):
    """Return the next line that a Go process says."""
    line = await asyncio.wait_for(process.stdout.readline(), seconds)
    assert line, "it ended"
    return json.loads(line)


def in_world(tmp_path, program, scenario):
    async def main():
        async with contextlib.AsyncExitStack() as stack:
            world = World(tmp_path, program, stack)
            await world.serve_api()
            await scenario(world)

    asyncio.run(main())


async def _who(call, _):
    return f"{call.peer.spiffe_id} {_serial(call.peer.certificate)}".encode()


def _serial(der):
    from cryptography import x509

    return f"{x509.load_der_x509_certificate(der).serial_number:x}"


async def _meta(call, _):
    found = dict(call.metadata)
    call.reply["path"] = found["path"]
    return found["nsm-client-token"].encode()


async def _fail(call, _):
    raise Unauthorized(REFUSAL)


async def _echo(call, message):
    return message


async def _slow(call, _):
    await asyncio.Event().wait()


async def _pause(call, message):
    await asyncio.sleep(0.5)
    return message


async def _count(call, message):
    wanted = int(message)
    number = 0
    while number != wanted:
        number += 1
        yield bytes(1000)
        if wanted < 0:
            await asyncio.sleep(0.005)


METHODS = {
    f"/test.Peer/{name}": rpc.Unary(handler)
    for name, handler in (
        ("Echo", _echo), ("Who", _who), ("Meta", _meta), ("Fail", _fail), ("Slow", _slow), ("Pause", _pause)
    )
} | {"/test.Peer/Count": rpc.ServerStream(_count)}  # fmt: skip


@pytest.mark.timeout(240)  # the first time it is built
@pytest.mark.parametrize(("engine", "scheme"), [("ng", "unix"), ("h2", "unix"), ("ng", "tcp")])
def test_grpc_go_calls_us(tmp_path, peer, engine, scheme):
    """Sizes, texts, metadata, deadlines, streams, rotation and drain, as grpc-go sees them from us."""
    url = f"unix://{tmp_path}/ours.sock" if scheme == "unix" else "tcp://127.0.0.1:0"

    async def scenario(world):
        async with rpc.serve(url, METHODS, identity=world.source, engine=engine) as server:
            caller = await world.go("call", "-api", world.api_url, "-url", server.url)
            checks = {}
            draining = None
            while line := await caller.stdout.readline():
                said = json.loads(line)
                if said.get("do") == "rotate":
                    world.rotate()
                elif said.get("do") == "drain":
                    draining = asyncio.ensure_future(server.aclose(grace=5))
                else:
                    checks[said["check"]] = said
            assert len(checks) >= 22
            assert [said for said in checks.values() if not said["ok"]] == []
            await draining

    in_world(tmp_path, peer, scenario)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("engine", "scheme"), [("ng", "unix"), ("h2", "unix"), ("ng", "tcp")])
def test_we_call_grpc_go(tmp_path, peer, engine, scheme):
    """The same, as we see it from grpc-go."""
    url = f"unix://{tmp_path}/theirs.sock" if scheme == "unix" else "tcp://127.0.0.1:0"

    async def scenario(world):
        theirs = await world.go("serve", "-api", world.api_url, "-url", url)
        place = (await heard(theirs))["ready"]
        where = url if scheme == "unix" else f"tcp://{place}"
        client = await rpc.connect(where, identity=world.source, engine=engine)
        try:
            await _ask(client)
            await _rotate(world, client, where, engine)
            await _drain(theirs, client)
        finally:
            await client.aclose(0)

    in_world(tmp_path, peer, scenario)


async def _ask(client):
    def call(name, message=b"", seconds=10.0, **options):
        deadline = asyncio.get_running_loop().time() + seconds
        return client.unary(f"/test.Peer/{name}", message, deadline=deadline, **options)

    for size in (0, 1, 1000, 16384, 16385, 70000, 1 << 20, 3 << 20):
        assert len((await call("Echo", bytes(size))).message) == size
    who = (await call("Who")).message.decode()
    assert who.startswith(f"spiffe://{DOMAIN}/ours ")
    with pytest.raises(Unauthorized) as refused:
        await call("Fail")
    assert str(refused.value) == REFUSAL
    for name, error in (("Nothing", Unimplemented), ("Slow", TimedOut)):
        with pytest.raises(error):
            await call(name, seconds=0.3)
    for size in (10, 3000, 30_000):
        sent = (("nsm-client-token", "t" * size), ("path", '{"Index":0}'))
        reply = await call("Meta", metadata=sent)
        assert reply.message == b"t" * size
        assert ("path", '{"Index":0}') in reply.metadata
    given_up = asyncio.ensure_future(call("Slow"))
    await asyncio.sleep(0.05)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert len([1 async for _ in client.stream("/test.Peer/Count", b"5000")]) == 5000
    endless = client.stream("/test.Peer/Count", b"-1")
    for _ in range(20):
        await anext(endless)
    await endless.aclose()
    for _ in range(20):
        answers = await asyncio.gather(*(call("Echo", bytes(984)) for _ in range(64)))
        assert len(answers) == 64


async def _rotate(world, client, url, engine):
    """See a stream survive the rotation of both sides, and new connections show the new SVIDs."""
    stream = client.stream("/test.Peer/Count", b"-1")
    await anext(stream)
    before = client.peer.certificate
    world.rotate()
    for _ in range(50):
        await anext(stream)
    await stream.aclose()
    limit = asyncio.get_running_loop().time() + 5
    while True:
        again = await rpc.connect(url, identity=world.source, engine=engine)
        who = (await again.unary("/test.Peer/Who", b"")).message.decode()
        shown = again.peer.certificate
        await again.aclose(0)
        assert who.endswith(" " + _serial(world.source.svid.chain[0]))
        if shown != before:
            return
        assert asyncio.get_running_loop().time() < limit
        await asyncio.sleep(0.05)


async def _drain(theirs, client):
    """See what runs end well, and no new call begin."""
    running = asyncio.ensure_future(client.unary("/test.Peer/Pause", b"x"))
    await asyncio.sleep(0.1)
    theirs.stdin.write(b"drain\n")
    assert (await running).message == b"x"
    limit = asyncio.get_running_loop().time() + 5
    while not client.closed:
        assert asyncio.get_running_loop().time() < limit
        await asyncio.sleep(0.01)
    with pytest.raises((Unavailable, Remote)) as caught:
        await client.unary("/test.Peer/Echo", b"")
    assert caught.value.status == Status.UNAVAILABLE


@pytest.mark.timeout(240)
def test_go_spiffe_is_served(tmp_path, peer):
    """X.509 contexts, bundles and JWTs are fetched; rotations are pushed; after a restart it comes back."""

    async def main():
        async with contextlib.AsyncExitStack() as outer:
            world = World(tmp_path, peer, outer)
            async with contextlib.AsyncExitStack() as first:
                world.stack = first
                await world.serve_api()
                world.stack = outer
                watcher = await world.go("watch", "-api", world.api_url)
                said = [await heard(watcher) for _ in range(4)]
                kinds = {key: one for one in said for key in one}
                me = f"spiffe://{DOMAIN}/go-1"
                assert (kinds["svid"]["svid"], kinds["svid"]["authorities"]) == (me, 1)
                assert (kinds["bundle"]["authorities"], kinds["bundle"]["keys"]) == (1, 1)
                assert kinds["jwt"] == {"jwt": me, "lives": True, "wrong": True}
                assert kinds["validated"]["validated"] == me
                world.rotate()
                rotated = await heard(watcher)
                assert rotated["serial"] != kinds["svid"]["serial"]
                world.ca.prepare()
                world.entries.announce()
                assert (await heard(watcher))["authorities"] == 2
            assert "trouble" in await heard(watcher)
            await world.serve_api()
            world.rotate()
            while "trouble" in (back := await heard(watcher, 30)):
                pass
            assert back["svid"] == me
            assert back["serial"] != rotated["serial"]

    asyncio.run(main())
