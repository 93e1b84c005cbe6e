"""The side of a host that joins, renews its identity, or leaves: single calls to the first host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

import nsmesh
from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.core.clock import Clock
from nsmesh.core.errors import Conflict, Refused, TimedOut, Unauthorized, Unavailable
from nsmesh.security.join_token import JoinToken, pin_of
from nsmesh.security.signing_request import make_request, prove_renewal
from nsmesh.security.svid import Svid, SvidSource
from nsmesh.security.verify import Bundle, load_certificates, verify_chain
from nsmesh.standalone.joining import methods
from nsmesh.standalone.joining.names import first_id, node_id
from nsmesh.standalone.joining.pinned import Pinned
from nsmesh.standalone.joining.place import Address, Place
from nsmesh.standalone.joining.record import Record, pem_of

DIAL = 5.0
"""Seconds within which the first host must take a connection."""
ANSWER = 10.0
"""Seconds within which it must answer."""


async def join(
    mesh: str, trust_domain: str, first: Address, place: Place, token: JoinToken, clock: Clock
) -> Record:
    """Make this host a node; return what it has to keep. Raises MeshError, with nothing done here."""
    key = ec.generate_private_key(ec.SECP256R1())
    claim = _claim(mesh, trust_domain, place, key, clock)
    claim.token_id = token.id
    with _at_its_port(first):
        answer = await _let_in(first, claim, token, trust_domain, clock)
    svid, bundle = taken(answer, key, trust_domain, clock)
    if token.pin not in {pin_of(one) for one in bundle.authorities}:
        raise Unauthorized(f"{first} gave a bundle without the CA of the token")
    return Record(
        name=place.name,
        mesh=mesh,
        ip=place.address.ip,
        port=place.address.port,
        first_name=answer.nodes[0].name if answer.nodes else "",
        first_ip=first.ip,
        first_port=first.port,
        registry_url=answer.registry_url,
        svid=svid.pem().decode(),
        bundle=pem_of(bundle),
    )


async def _let_in(
    first: Address, claim: join_pb2.Claim, token: JoinToken, trust_domain: str, clock: Clock
) -> join_pb2.Identity:
    pinned = Pinned([token.pin], str(first), clock)
    client = await _reached(first, pinned)
    try:
        if pinned.trust_domain != trust_domain:
            other = pinned.trust_domain.removesuffix(".nsmesh")
            raise Conflict(
                f"the mesh at {first} is called {other}, and {claim.mesh} was to be joined",
                remedy=f"nsm --mesh {other} join ...",
            )
        body = claim.SerializeToString()
        return await _asked(client, methods.JOIN, join_pb2.Signed(claim=body, proof=token.prove(body)))
    finally:
        await client.aclose(0)


@contextlib.contextmanager
def _at_its_port(first: Address) -> Iterator[None]:
    """Say it better where the mesh answers that wants a certificate: those are its other ports."""
    try:
        yield
    except Unauthorized as error:
        if "certificate required" not in error.what:
            raise
        raise Refused(
            f"{first} is no port at which hosts join: it wants a certificate",
            remedy="join at the address that nsm up --listen was given, and nsm token create says",
        ) from error


async def renewed(record: Record, trust_domain: str, source: SvidSource, clock: Clock) -> tuple[Svid, Bundle]:
    """Return a new identity for a node, also when its old one has ended; raises MeshError."""
    key = ec.generate_private_key(ec.SECP256R1())
    body = _claim(record.mesh, trust_domain, record.place, key, clock).SerializeToString()
    signed = join_pb2.Signed(claim=body, proof=prove_renewal(source.svid.key, body))
    client = await _reached(
        record.first.address,
        Pinned(_pins(source.bundles[trust_domain].authorities), str(record.first.address), clock),
    )
    try:
        answer = await _asked(client, methods.RENEW, signed)
    finally:
        await client.aclose(0)
    return taken(answer, key, trust_domain, clock)


async def leave(record: Record, trust_domain: str, clock: Clock) -> None:
    """Tell the first host that this node leaves; raises MeshError."""
    svid, bundle = record.keys(trust_domain)
    source = SvidSource(svid, [bundle], clock=clock)
    if svid.not_after <= clock.now():
        source.update(*_listed(await renewed(record, trust_domain, source, clock)))
    client = await _reached(record.first.address, source)
    try:
        check_first(client, trust_domain)
        await _asked(client, methods.LEAVE, join_pb2.Empty())
    finally:
        await client.aclose(0)


def check_first(client: rpc.Client, trust_domain: str) -> None:
    """Raise Unauthorized unless it is the first host that answers."""
    if client.peer.spiffe_id != first_id(trust_domain):
        raise Unauthorized(
            f"{client.peer.spiffe_id} answers at {client.url}, not the first host of {trust_domain}",
            remedy="see what listens there",
        )


def _listed(found: tuple[Svid, Bundle]) -> tuple[Svid, list[Bundle]]:
    return found[0], [found[1]]


def _pins(authorities: Sequence[Certificate]) -> list[bytes]:
    return [pin_of(one) for one in authorities]


def _claim(
    mesh: str, trust_domain: str, place: Place, key: ec.EllipticCurvePrivateKey, clock: Clock
) -> join_pb2.Claim:
    return join_pb2.Claim(
        name=place.name,
        mesh=mesh,
        version=nsmesh.__version__,
        time=clock.now(),
        address=place.address.ip,
        manager_url=place.address.manager,
        request=make_request(key, node_id(trust_domain, place.name)),
    )


async def _reached(first: Address, identity: Any) -> rpc.Client:
    """Return a connection to a mesh port; errors say what may be wrong with the address."""
    try:
        return await rpc.connect(first.mesh, identity=identity, timeout=DIAL)
    except TimedOut as error:
        raise TimedOut(
            f"{first} does not answer", remedy="see that the host is up, and that no firewall drops the port"
        ) from error
    except Unavailable as error:
        raise Unavailable(
            f"no mesh can be joined at {first}: {error.what}",
            remedy="check address and port: nsm up --listen IP:PORT says it there, and nsm token create",
        ) from error


async def _asked(client: rpc.Client, method: str, message: Any) -> join_pb2.Identity:
    limit = asyncio.get_running_loop().time() + ANSWER
    reply = await client.unary(method, message.SerializeToString(), deadline=limit)
    return join_pb2.Identity.FromString(reply.message)


def taken(
    answer: join_pb2.Identity, key: ec.EllipticCurvePrivateKey, trust_domain: str, clock: Clock
) -> tuple[Svid, Bundle]:
    """Return SVID and bundle of an answer, checked; raises Invalid or Unauthorized."""
    bundle = Bundle.from_der(trust_domain, answer.bundle)
    chain = tuple(one.public_bytes(Encoding.DER) for one in load_certificates(answer.svid))
    svid = Svid(chain, key)  # raises Invalid where the certificate is of another key
    verify_chain(svid.chain, {trust_domain: bundle}, clock.now())
    return svid, bundle
