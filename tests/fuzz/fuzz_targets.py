"""What is fuzzed: each target takes any bytes, and either accepts them or refuses them in its own clean way.

A target raises for everything else: that is a finding. Its seeds show the fuzzer what good input looks like.
"""

import asyncio
import contextlib
import functools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nsmesh import rpc
from nsmesh.chains import settings as daemon_settings
from nsmesh.chains.settings_nsc import NscSettings
from nsmesh.core.begin import Begin
from nsmesh.core.call import Peer
from nsmesh.core.clock import SystemClock
from nsmesh.core.element import chain
from nsmesh.core.errors import Internal, Invalid, MeshError, Unauthorized
from nsmesh.core.scope import Scope
from nsmesh.core.tokens import PlainTokens
from nsmesh.datapath.memif import messages as memif_messages
from nsmesh.datapath.memif.conversation import Client, Server
from nsmesh.elements import serve
from nsmesh.elements.authorize import Authorize
from nsmesh.elements.monitor import Monitor
from nsmesh.elements.timeout import Timeout
from nsmesh.elements.update_path import UpdatePath
from nsmesh.elements.update_token import UpdateToken
from nsmesh.model import manifest, nsurl, settings
from nsmesh.model.manifest_errors import ManifestErrors
from nsmesh.model.messages import Connection, NetworkService, NetworkServiceEndpoint, NetworkServiceRequest
from nsmesh.model.registry_path import read_registry_path
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE
from nsmesh.rpc import address, framing
from nsmesh.rpc import engine as http2
from nsmesh.rpc.client_connection import ClientConnection
from nsmesh.rpc.descriptors import Descriptors
from nsmesh.rpc.h2_frames import PREFACE
from nsmesh.rpc.server_connection import ServerConnection
from nsmesh.security.jws import BadToken
from nsmesh.security.spiffe import SpiffeId, read_leaf
from nsmesh.security.token import read_claims
from nsmesh.security.verify import load_certificates
from nsmesh.security.workload_response import read_x509_response

ROOT = Path(__file__).parents[2]
LIMITS = rpc.Limits(window=1 << 16)
MOST_OUT = 8 << 20
"""Bytes that a connection may want to send for one input."""


@dataclass(frozen=True)
class Target:
    """``run`` takes one input; ``seeds`` are good ones; ``loop``: it needs a running event loop."""

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    loop: bool = False


class FakeWire:
    """What a connection sees of its wire; a fault of our own is a finding."""

    def __init__(self, user):
        self.user = user
        self.peer = Peer()
        self.where = "the fuzzer"
        self.dead = False
        self.unix = True
        self.buffered = 0
        self.out = 0

    def write(self, data):
        self.out += len(data)
        assert self.out < MOST_OUT

    def established(self):
        pass

    def send_fd(self, path):
        raise Invalid("no descriptors here")

    def end(self, reason):
        if not self.dead:
            self.dead = True
            self.user.lost(reason)

    def close(self):
        self.end(Invalid("closed"))

    def abort(self, reason):
        assert not isinstance(reason, Internal), "a fault of our own"
        self.end(reason)


class Owner:
    own = "fuzzed"

    def established(self, connection):
        pass

    def lost(self, connection, reason):
        pass

    def idle(self):
        pass

    def grown(self):
        pass


async def echo(call, message):
    return message


async def both(call, messages):
    async for message in messages:
        yield message


async def many(call, message):
    for _ in range(3):
        yield message


METHODS = {"/a.B/Echo": rpc.Unary(echo), "/a.B/Both": rpc.Bidi(both), "/a.B/Many": rpc.ServerStream(many)}


def cut(data):
    """Yield pieces of an input; their sizes come from its first byte."""
    size = data[0] + 1 if data else 1
    data = data[1:]
    for place in range(0, len(data), size):
        yield data[place : place + size]


async def at_a_server(engine, data):
    """Give a whole server connection what a client might send."""
    async with Scope("fuzz") as scope:
        connection = ServerConnection(
            Owner(), METHODS, http2.make(engine, LIMITS, client=False), LIMITS, scope, Descriptors()
        )
        connection.wire = FakeWire(connection)
        connection.opened()
        for piece in cut(data):
            if connection.wire.dead:
                break
            connection.received(piece)
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        connection.flush()
        assert connection.kept <= LIMITS.held + (1 << 20)
        connection.wire.end(Invalid("over"))
        assert connection.running == 0


async def at_a_client(engine, data):
    """Give a client with two calls under way what a server might answer."""
    connection = ClientConnection("fuzz", http2.make(engine, LIMITS, client=True), LIMITS)
    connection.wire = FakeWire(connection)
    connection.opened()
    ends = []
    for path in ("/a.B/Echo", "/a.B/Many"):
        stream, call = connection.begin(path, (), None)
        call.future = asyncio.get_running_loop().create_future()
        connection.engine.data(stream, framing.envelope(b"x"), ended=True)
        ends.append(call.future)
    connection.flush()
    for piece in cut(data):
        if connection.wire.dead:
            break
        connection.received(piece)
    connection.flush()
    connection.wire.end(Invalid("over"))
    for end in [*ends, connection.ready]:
        assert end.done()
        if not end.cancelled():
            end.exception()


def frame(kind, flags, stream, body=b""):
    return struct.pack(">BHBBI", len(body) >> 16, len(body) & 0xFFFF, kind, flags, stream) + body


def client_seeds():
    """Return conversations of a good client, as an engine makes them."""
    seeds = []
    for path, messages in ((b"/a.B/Echo", 1), (b"/a.B/Both", 3), (b"/a.B/Many", 1), (b"/none", 1)):
        engine = http2.make("ng", LIMITS, client=True)
        engine.start()
        for _ in range(2):
            stream = engine.request(
                [
                    (b":method", b"POST"),
                    (b":scheme", b"http"),
                    (b":path", path),
                    (b":authority", b"x"),
                    (b"content-type", b"application/grpc"),
                    (b"grpc-timeout", b"1S"),
                    (b"k-bin", b"AAEC"),
                ]
            )
            engine.data(stream, framing.envelope(b"hello" * 10) * messages, ended=True)
        seeds.append(b"\xff" + engine.take(1 << 20))
    rest = b"".join(
        (
            frame(6, 0, 0, b"12345678"),
            frame(4, 0, 0, b"\0\4\0\0\xff\xff"),
            frame(8, 0, 0, b"\0\0\1\0"),
            frame(3, 0, 1, b"\0\0\0\10"),
            frame(7, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0"),
        )
    )
    seeds.append(b"\x20" + PREFACE + frame(4, 0, 0) + rest)
    return tuple(seeds)


def server_seeds():
    """Return conversations of a good server."""
    seeds = []
    for trailers in ([(b"grpc-status", b"0")], [(b"grpc-status", b"7"), (b"grpc-message", b"no%20way")]):
        server, client = (http2.make("ng", LIMITS, client=side) for side in (False, True))
        server.start()
        client.start()
        for _ in range(2):
            client.data(
                client.request(
                    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"x")]
                ),
                b"",
                ended=True,
            )
        server.feed(client.take(1 << 20))
        for stream in (1, 3):
            server.headers(
                stream, [(b":status", b"200"), (b"content-type", b"application/grpc")], ended=False
            )
            server.data(stream, framing.envelope(b"answer"), ended=False)
            server.trailers(stream, trailers)
        server.goaway(0, 0)
        seeds.append(b"\xff" + server.take(1 << 20))
    return tuple(seeds)


def http2_targets():
    for engine in ("ng", "h2"):
        yield Target(f"server-{engine}", functools.partial(at_a_server, engine), client_seeds(), loop=True)
        yield Target(f"client-{engine}", functools.partial(at_a_client, engine), server_seeds(), loop=True)


def memif_talk(data):
    """Have one side of a memif hear messages of 128 bytes; the first byte says which side."""
    talk = Client() if data[:1] == b"\1" else Server()
    with contextlib.suppress(memif_messages.ProtocolError), contextlib.closing(talk):
        for start in range(1, len(data), memif_messages.SIZE):
            talk.receive(memif_messages.decode(data[start : start + memif_messages.SIZE]), None)


def messages():
    """Return good messages, each behind the number of a method."""
    made = Connection(id="a", network_service="s")
    made.path.path_segments.add(name="nsc", id="a").expires.FromSeconds(1 << 32)
    made.labels["app"] = "x"
    request = NetworkServiceRequest(connection=made)
    request.mechanism_preferences.add(cls="LOCAL", type="KERNEL").parameters["inodeURL"] = (
        "file:///proc/1/ns/net"
    )
    endpoint = NetworkServiceEndpoint(name="e", network_service_names=["s"], url="unix:///x")
    endpoint.network_service_labels["s"].labels["a"] = "b"
    service = NetworkService(name="s", payload="IP")
    service.matches.add().routes.add().destination_selector["a"] = "{{ .app }}"
    bodies = [one.SerializeToString() for one in (request, made, endpoint, service)]
    return tuple(bytes([number]) + body for number in range(11) for body in bodies)


async def at_the_methods(data):
    """Call each method of a manager and a registry with any bytes."""
    clock = SystemClock()
    held = Monitor("fuzzed")
    server = chain(
        UpdatePath("fuzzed"),
        Begin(),
        UpdateToken(PlainTokens(clock)),
        Authorize(),
        Timeout(),
        held,
        name="fuzzed",
    )
    registry = chain(Begin(), end=Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT)), name="registry")
    methods = serve.connections(server) | serve.registry(registry)
    methods |= serve.health(methods)
    path = sorted(methods)[(data[0] if data else 0) % len(methods)]
    method = methods[path]
    in_process = bool(data[1:2] and data[1] & 1)
    call = rpc.ServerCall(path, (), None, Peer(in_process=in_process), None, lambda _: "")
    async with server.running(), registry.running():
        with contextlib.suppress(MeshError, TimeoutError):
            async with asyncio.timeout(0.01):
                if isinstance(method, rpc.Unary):
                    await method.handler(call, data[1:])
                else:
                    async for _ in method.handler(call, data[1:]):
                        pass


def refused_by(function, *errors):
    """Return a target that takes any text and may refuse it with ``errors``."""

    def run(data):
        with contextlib.suppress(*errors):
            function(data.decode("utf-8", "replace"))

    return run


def path_header(text):
    path = read_registry_path(text)
    path.enter("caller", "own")
    read_registry_path(path.text())


def environment(text):
    """Read the settings of every daemon from lines like NAME=value."""
    given = dict(line.partition("=")[::2] for line in text.replace("\0", "").splitlines() if "=" in line)
    for kind in (
        daemon_settings.NsmgrSettings,
        daemon_settings.ForwarderSettings,
        daemon_settings.RegistrySettings,
        NscSettings,
        daemon_settings.NseSettings,
    ):
        with contextlib.suppress(settings.SettingsError):
            settings.load(kind, given)


def tokens():
    lines = (ROOT / "tests" / "data" / "traces" / "errors-tokens.jsonl").read_text().splitlines()
    return tuple(one["raw"].encode() for one in json.loads(lines[0])["tokens"].values())


def leaves():
    lines = (ROOT / "tests" / "data" / "traces" / "errors-tokens.jsonl").read_text().splitlines()
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return tuple(
        x509.load_pem_x509_certificate(one["leaf"].encode()).public_bytes(Encoding.DER)
        for one in json.loads(lines[0])["identities"].values()
    )


def certificate(data):
    with contextlib.suppress(Unauthorized):
        read_leaf(data)
    with contextlib.suppress(Invalid):
        load_certificates(data)
    with contextlib.suppress(Invalid):
        read_x509_response(data)


def manifests():
    return tuple(path.read_bytes() for path in sorted((ROOT / "examples").glob("*/*.yaml")))


def timeouts(data):
    with contextlib.suppress(Invalid):
        framing.decode_timeout(data)
    pairs = [tuple(line.partition(b":")[::2]) for line in data.split(b"\n")]
    framing.decode_metadata(pairs)
    framing.outcome(pairs)
    framing.not_grpc(pairs)


def targets():
    """Return all targets by name."""
    found = [
        *http2_targets(),
        Target("methods", at_the_methods, messages(), loop=True),
        Target("token", refused_by(read_claims, BadToken), tokens()),
        Target(
            "path-header",
            refused_by(path_header, ValueError),
            (b'{"Index":1,"PathSegments":[{"token":"a"},{"token":"b"}]}', b"null", b"{}"),
        ),
        Target("manifest", refused_by(lambda text: manifest.load(text, "f"), ManifestErrors), manifests()),
        Target(
            "nsurl",
            refused_by(nsurl.parse_list, nsurl.NsUrlError),
            (b"kernel://s@d/nsm-1?a=b&c=d, memif://x", b"kernel://s"),
        ),
        Target(
            "settings",
            refused_by(environment),
            (b"NSM_LABELS=a:b,c:d\nNSM_DIAL_TIMEOUT=1h2m3.5s\nNSM_LISTEN_ON=unix:///x,tcp://:1",),
        ),
        Target("certificate", certificate, leaves()),
        Target("headers", timeouts, (b"grpc-timeout:10S\nk-bin:AAE=\ngrpc-status:5\ngrpc-message:a%20b",)),
        Target(
            "address",
            refused_by(address.parse, Invalid),
            (b"unix:///a", b"tcp://[::1]:5", b"unix://@a", b"h:1"),
        ),
        Target(
            "memif",
            memif_talk,
            (
                b"\0" + memif_messages.encode(memif_messages.Init()),
                b"\1" + memif_messages.encode(memif_messages.Hello("x")),
                b"\0"
                + memif_messages.encode(memif_messages.Init())
                + memif_messages.encode(memif_messages.AddRing(0, 0, 0, 4, to_server=True)),
            ),
        ),
        Target("spiffe", refused_by(SpiffeId.parse, Invalid), (b"spiffe://a.b/c/d",)),
    ]
    return {target.name: target for target in found}


__all__ = ["Target", "targets"]
