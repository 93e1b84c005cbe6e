"""What the tests of ``rpc`` share: a service, a throw-away CA, and the count of open descriptors."""

import asyncio
import contextlib
import datetime as dt
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh import rpc
from nsmesh.core.errors import Unauthorized
from nsmesh.rpc import address, dialing
from nsmesh.rpc.descriptors import Descriptors

LIMITS = rpc.Limits()
HEADERS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/test.Echo/Echo"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]


def open_descriptors():
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Service:
    """Handlers, and what happened to them."""

    def __init__(self):
        self.calls = []
        self.cancelled = 0
        self.made = 0
        self.gate = asyncio.Event()

    async def echo(self, call, message):
        self.calls.append(call)
        return message

    async def wait(self, call, message):
        self.calls.append(call)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return message

    async def count(self, call, message):
        """Answer with ``n`` messages of ``size`` bytes; without end where n is negative."""
        n, size = (int(part) for part in message.split())
        self.made = 0
        try:
            while self.made != n:
                self.made += 1
                yield b"%8d" % self.made + bytes(size)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def hold(self, call, message):
        """Answer once, then wait for ever."""
        yield b"first"
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    async def both(self, call, messages):
        async for message in messages:
            yield message

    async def lazy(self, call, messages):
        """Read nothing before the gate opens, then tell how much came."""
        await self.gate.wait()
        total = 0
        async for message in messages:
            total += len(message)
        yield b"%d" % total

    def methods(self):
        return {
            "/test.Echo/Echo": rpc.Unary(self.echo),
            "/test.Echo/Wait": rpc.Unary(self.wait),
            "/test.Echo/Count": rpc.ServerStream(self.count),
            "/test.Echo/Hold": rpc.ServerStream(self.hold),
            "/test.Echo/Both": rpc.Bidi(self.both),
            "/test.Echo/Lazy": rpc.Bidi(self.lazy),
        }


@contextlib.asynccontextmanager
async def pair(engine=None, url=None, service=None, extra=None, **options):
    """Give a service, its server and a client of it, over a real socket with a folder of its own."""
    service = service or Service()
    client_engine = options.pop("client_engine", engine)
    client_options = {key: options[key] for key in ("limits", "descriptors") if key in options}
    if "identity" in options:
        client_options["identity"] = options.pop("client_identity", options["identity"])
    with tempfile.TemporaryDirectory() as folder:
        url = url or f"unix://{folder}/server.sock"
        methods = service.methods() | (extra or {})
        async with rpc.serve(url, methods, engine=engine, **options) as server:
            client = await rpc.connect(server.url, engine=client_engine, **client_options)
            try:
                yield service, server, client
            finally:
                await client.aclose(0)


def table():
    """Return a descriptor table of a test's own."""
    return Descriptors()


class Authority:
    """A CA of one trust domain."""

    def __init__(self, domain="test.mesh"):
        self.domain = domain
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, domain)])
        self.certificate = self._sign(self.name, self.key.public_key(), f"spiffe://{domain}", ca=True)

    def _sign(self, subject, key, uri, *, ca):
        now = dt.datetime.now(dt.UTC)
        usage = x509.KeyUsage(
            digital_signature=not ca,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=ca,
            crl_sign=ca,
            encipher_only=False,
            decipher_only=False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=not ca
            )
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def identity(self, role, folder, trusts=None):
        """Return an identity of this domain that trusts the domains of ``trusts`` (its own by default)."""
        return TestIdentity(self, role, Path(folder), trusts or [self])


class TestIdentity:
    """Satisfies ``nsmesh.core.identity.Identity``."""

    __test__ = False

    def __init__(self, authority, role, folder, trusts):
        self.spiffe_id = f"spiffe://{authority.domain}/{role}"
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = authority._sign(x509.Name([]), key.public_key(), self.spiffe_id, ca=False)
        self.der = leaf.public_bytes(serialization.Encoding.DER)
        self.file = folder / f"{role}-{authority.domain}.pem"
        self.file.write_bytes(
            leaf.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.bundle = b"".join(other.certificate.public_bytes(serialization.Encoding.PEM) for other in trusts)
        self.refuses = False
        self.listeners = []

    def on_rotation(self, listener):
        self.listeners.append(listener)
        listeners = self.listeners
        return lambda: listeners.remove(listener)

    def _context(self, protocol):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.bundle.decode())
        context.load_cert_chain(self.file)
        context.set_alpn_protocols(["h2"])
        return context

    def client_context(self):
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def server_context(self):
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def verify(self, chain):
        if self.refuses:
            raise Unauthorized("the test refuses this certificate")
        leaf = x509.load_der_x509_certificate(chain[0])
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


def dial(url, timeout=1.0):
    """Connect to ``url`` and leave again; return the family of the socket."""

    async def main():
        with await dialing.dial(address.parse(url), timeout) as sock:
            return sock.family

    return asyncio.run(main())
