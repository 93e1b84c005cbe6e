"""What the attackers bring: certificates and tokens of any make, and raw HTTP/2."""

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import ssl
import struct
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from security_roles import DOMAIN

from nsmesh import rpc
from nsmesh.core.errors import MeshError
from nsmesh.core.tokens import token_headers
from nsmesh.model import methods
from nsmesh.model.messages import LOCAL, NOOP, Connection, Mechanism, NetworkServiceRequest
from nsmesh.rpc import engine as http2
from nsmesh.security import jws

LIMITS = rpc.Limits()


def spiffe(name):
    return f"spiffe://{DOMAIN}/{name}"


class Forged:
    """An identity with a certificate exactly as told, which believes everybody: for ``rpc.connect``.

    ``signer``: (certificate, key) of who signs; None signs itself. ``chain`` is shown behind the leaf.
    """

    def __init__(self, folder, uris, *, signer=None, key=None, life=(-60, 3600), ca=False, alpn=("h2",)):
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.alpn = list(alpn)
        self.spiffe_id = uris[0] if uris else ""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "attacker")])
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(signer[0].subject if signer else name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(seconds=life[0]))
            .not_valid_after(now + dt.timedelta(seconds=life[1]))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if uris:
            sans = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
            builder = builder.add_extension(sans, critical=False)
        self.certificate = builder.sign(signer[1] if signer else self.key, hashes.SHA256())
        self.file = Path(folder) / f"{id(self)}.pem"
        self.file.write_bytes(
            self.certificate.public_bytes(serialization.Encoding.PEM)
            + self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def on_rotation(self, listener):
        return lambda: None

    def client_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self.file)
        if self.alpn:
            context.set_alpn_protocols(self.alpn)
        return context

    def verify(self, chain):
        return "spiffe://anybody/at-all"


class Nobody(Forged):
    """Shows no certificate."""

    def __init__(self):
        self.spiffe_id = ""

    def client_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        return context


def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def claims(me, to="nsmgr", **changes):
    """Return the claims of a good token, changed; a change to None removes one."""
    good = {"sub": spiffe(me), "aud": [spiffe(to)], "exp": int(time.time()) + 600} | changes
    return {name: value for name, value in good.items() if value is not None}


def signed(key, said):
    return jws.sign({"typ": "JWT"}, said, key)


def compact(header, said, sign):
    """Return a token of any algorithm; ``sign`` makes the signature of its text."""
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in (header, said)]
    text = b".".join(parts)
    return b".".join((text, base64.urlsafe_b64encode(sign(text)).rstrip(b"="))).decode()


def unsigned(said):
    return compact({"alg": "none", "typ": "JWT"}, said, lambda _: b"")


def confused(said, public_key):
    """Return a token that takes the public key for a shared secret."""
    secret = public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return compact(
        {"alg": "HS256", "typ": "JWT"}, said, lambda text: hmac.digest(secret, text, hashlib.sha256)
    )


def headers(token, expires=None):
    return token_headers(token, time.time() + 600 if expires is None else expires)


def connection(identifier="attack-0", name="attacker", **changes):
    """Return a new connection of the service, with one segment of the caller."""
    made = Connection(id=identifier, network_service="service", payload="IP", **changes)
    made.path.path_segments.add(name=name, id=identifier)
    return made


def wanted(made):
    """Return the Request for a connection."""
    return NetworkServiceRequest(
        connection=made, mechanism_preferences=[Mechanism(cls=LOCAL, type=NOOP)]
    ).SerializeToString()


class Insider:
    """A workload with a good SVID and bad intentions."""

    def __init__(self, ca, name):
        self.name = name
        self.svid = ca.issue(spiffe(name))
        self.key = self.svid.key
        from nsmesh.security.svid import SvidSource

        self.identity = SvidSource(self.svid, [ca.bundle()])

    def token(self, to="nsmgr", **changes):
        return signed(self.key, claims(self.name, to, **changes))

    async def dial(self, url, **options):
        return await rpc.connect(url, identity=self.identity, **options)

    async def call(self, url, path, message, metadata=None, *, to="nsmgr", seconds=5.0):
        """Call once on a connection of its own; with a good token unless ``metadata`` is given."""
        sent = headers(self.token(to)) if metadata is None else metadata
        client = await self.dial(url)
        try:
            deadline = asyncio.get_running_loop().time() + seconds
            return await client.unary(path, message, metadata=sent, deadline=deadline)
        finally:
            await client.aclose(0)

    async def request(self, url, made, metadata=None, **options):
        reply = await self.call(url, methods.REQUEST, wanted(made), metadata, **options)
        return Connection.FromString(reply.message)

    async def close(self, url, made, metadata=None, **options):
        await self.call(url, methods.CLOSE, made.SerializeToString(), metadata, **options)


class Raw:
    """HTTP/2 by hand, over TLS, to a unix socket."""

    def __init__(self, url, context, limits=LIMITS):
        self.path = url.removeprefix("unix://")
        self.context = context
        self.engine = http2.make("ng", limits, client=True)
        self.engine.start()
        self.heard = bytearray()
        self.events = []
        self.ended = False

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_unix_connection(
            self.path, ssl=self.context, server_hostname="any"
        )
        self.flush()
        await self.until(http2.Settings)
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()

    @property
    def over(self):
        """Whether the other side has ended the connection."""
        return self.reader.at_eof() or self.writer.is_closing()

    def flush(self):
        if out := self.engine.take(1 << 24):
            self.writer.write(out)

    def send(self, kind, flags, stream, body=b""):
        head = struct.pack(">BHBBI", len(body) >> 16, len(body) & 0xFFFF, kind, flags, stream)
        self.writer.write(head + body)

    def open(self, path=methods.MONITOR, extra=()):
        """Begin a call and return its stream."""
        stream = self.engine.request(
            [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":path", path.encode()),
                (b":authority", b"localhost"),
                (b"content-type", b"application/grpc"),
                *extra,
            ]
        )
        self.flush()
        return stream

    async def read(self):
        try:
            data = await asyncio.wait_for(self.reader.read(1 << 16), 30)
        except (OSError, ssl.SSLError):
            data = b""
        self.ended = not data
        self.heard += data
        with contextlib.suppress(http2.EngineError):
            self.events += self.engine.feed(data) if data else []
        with contextlib.suppress(OSError):
            self.flush()

    async def until(self, kind, stream=None):
        while True:
            for event in self.events:
                if isinstance(event, kind) and (stream is None or event.stream == stream):
                    return event
            assert not self.ended, "the connection ended"
            await self.read()

    async def end(self):
        """Read to the end and return the codes of the GOAWAY frames."""
        while not self.ended:
            await self.read()
        codes, place = [], 0
        while len(self.heard) >= place + 9:
            if self.heard[place + 3] == 7:
                codes.append(struct.unpack_from(">I", self.heard, place + 13)[0])
            place += 9 + int.from_bytes(self.heard[place : place + 3], "big")
        return codes


async def refusal(awaitable):
    """Return the error that a call ends with."""
    try:
        await awaitable
    except MeshError as error:
        return error
    raise AssertionError("it was not refused")
