"""The server side of the SPIFFE Workload API: bytes in, bytes out, whatever carries them.

A stream answers at once, stays open, and sends a complete new message whenever something of it changed: at
half of an SVID's life, when an authority joins or leaves the bundle, when the entries change, and when the
clock is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from nsmesh.api import workload_pb2
from nsmesh.core.call import Peer
from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Invalid, Unauthorized, Unimplemented
from nsmesh.security.ca import MAX_TTL, CertificateAuthority
from nsmesh.security.entries import Entries, Entry, attest
from nsmesh.security.issuer import Issuer
from nsmesh.security.jwt_svid import jwt_bundle, mint_jwt_svid, validate_jwt_svid
from nsmesh.security.spiffe import trust_domain_of
from nsmesh.security.svid import Svid
from nsmesh.security.verify import Bundle
from nsmesh.security.workload_names import SECURITY_HEADER

Metadata: TypeAlias = Sequence[tuple[str, str]]
M = TypeVar("M", bound=Message)

LONGEST_WAIT = 3600.0
"""Seconds after which a stream looks whether something changed, in any case."""


@dataclass(frozen=True, slots=True)
class _Issued:
    svid: Svid
    renew: float


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls: its selectors, and its credentials in words."""

    selectors: frozenset[str]
    words: str


class WorkloadApi:
    """Serves SVIDs of one issuer to the callers that ``entries`` know.

    ``attestor`` turns a caller's credentials into selectors. All callers with one ID share its SVID, so a
    process that starts again has the key by which it was known.
    """

    def __init__(
        self,
        ca: Issuer,
        entries: Entries,
        *,
        clock: Clock | None = None,
        attestor: Callable[[Peer], frozenset[str]] = attest,
    ) -> None:
        self.entries = entries
        self._ca = ca
        self._clock = clock or SystemClock()
        self._attest = attestor
        self._issued: dict[tuple[str, float], _Issued] = {}
        self._foreign: dict[str, Bundle] = {}

    def federate(self, bundle: Bundle) -> None:
        """Give the bundle of another trust domain to those whose entries federate with it."""
        self._foreign[bundle.trust_domain] = bundle
        self.entries.announce()

    def maintain(self) -> None:
        """Let the CA take the step of its rotation that is due, and forget SVIDs that ended."""
        now = self._clock.now()
        self._issued = {what: issued for what, issued in self._issued.items() if issued.svid.not_after > now}
        if self._ca.maintain():
            self.entries.announce()

    def clock_was_set(self) -> None:
        """Give everybody what is valid now, authorities included."""
        while self._ca.maintain():  # prepared and active at once: by this clock there is no time for both
            pass
        self.entries.announce()

    # -- the five methods --------------------------------------------------------------------------------

    def fetch_x509_svid(self, metadata: Metadata, peer: Peer, message: bytes) -> AsyncIterator[bytes]:
        """FetchX509SVID: yield the caller's SVIDs, keys and bundles, now and at each change."""
        return self._stream(metadata, peer, message, workload_pb2.X509SVIDRequest, self._x509_svids)

    def fetch_x509_bundles(self, metadata: Metadata, peer: Peer, message: bytes) -> AsyncIterator[bytes]:
        """FetchX509Bundles: yield the bundles that the caller may know, now and at each change."""
        return self._stream(metadata, peer, message, workload_pb2.X509BundlesRequest, self._x509_bundles)

    def fetch_jwt_bundles(self, metadata: Metadata, peer: Peer, message: bytes) -> AsyncIterator[bytes]:
        """FetchJWTBundles: yield the keys that verify JWT-SVIDs, now and at each change."""
        return self._stream(metadata, peer, message, workload_pb2.JWTBundlesRequest, self._jwt_bundles)

    async def fetch_jwt_svid(self, metadata: Metadata, peer: Peer, message: bytes) -> bytes:
        """FetchJWTSVID: return JWT-SVIDs for an audience, of all the caller's IDs or of the one asked for."""
        caller = self._caller(metadata, peer)
        request = _parse(workload_pb2.JWTSVIDRequest, message)
        entries = self._entries(caller)
        if request.spiffe_id:
            entries = [entry for entry in entries if entry.spiffe_id == request.spiffe_id]
            if not entries:
                raise Unauthorized(f"{caller.words} has no identity {request.spiffe_id!a}")
        ca = self._jwt_authority()
        now = self._clock.now()
        svids = [
            workload_pb2.JWTSVID(
                spiffe_id=entry.spiffe_id,
                svid=mint_jwt_svid(ca.active, entry.spiffe_id, request.audience, entry.ttl, now),
                hint=entry.hint,
            )
            for entry in entries
        ]
        return workload_pb2.JWTSVIDResponse(svids=svids).SerializeToString()

    async def validate_jwt_svid(self, metadata: Metadata, peer: Peer, message: bytes) -> bytes:
        """ValidateJWTSVID: return the ID and the claims of a JWT-SVID; raises Invalid for a bad one."""
        self._entries(self._caller(metadata, peer))
        request = _parse(workload_pb2.ValidateJWTSVIDRequest, message)
        ca = self._jwt_authority()
        spiffe_id, claims = validate_jwt_svid(
            request.svid,
            request.audience,
            ca.trust_domain,
            ca.authorities,
            self._clock.now(),
        )
        response = workload_pb2.ValidateJWTSVIDResponse(spiffe_id=spiffe_id)
        try:
            response.claims.update(claims)
        except (ValueError, OverflowError) as error:
            raise Invalid("the claims of the JWT-SVID do not fit into a message") from error
        return response.SerializeToString()

    # -- how they do it ----------------------------------------------------------------------------------

    def _caller(self, metadata: Metadata, peer: Peer) -> _Caller:
        if [value for key, value in metadata if key == SECURITY_HEADER] != ["true"]:
            raise Invalid(
                "security header missing from request", remedy=f"send the metadata {SECURITY_HEADER}: true"
            )
        return _Caller(self._attest(peer), f"the caller with uid {peer.uid}, gid {peer.gid}, pid {peer.pid}")

    def _jwt_authority(self) -> CertificateAuthority:
        """Return the CA whose keys sign JWT-SVIDs; raises Unimplemented where it is on another host."""
        if not isinstance(self._ca, CertificateAuthority):
            raise Unimplemented(
                "JWT-SVIDs are served on the first host of a mesh alone",
                remedy="the mesh itself needs none; ask for them there",
            )
        return self._ca

    def _entries(self, caller: _Caller) -> list[Entry]:
        entries = self.entries.matching(caller.selectors)
        if not entries:
            raise Unauthorized(
                f"no identity issued: {caller.words} matches no registration entry",
                remedy=f"register one for {', '.join(sorted(caller.selectors)) or 'its selectors'}",
            )
        return entries

    async def _stream(
        self,
        metadata: Metadata,
        peer: Peer,
        message: bytes,
        kind: type[Message],
        make: Callable[[_Caller], Awaitable[tuple[Message, float]]],
    ) -> AsyncIterator[bytes]:
        caller = self._caller(metadata, peer)
        _parse(kind, message)
        sent: bytes | None = None
        while True:
            change = self.entries.change
            response, until = await make(caller)
            body = response.SerializeToString(deterministic=True)
            if body != sent:
                yield body
                sent = body
            wait = min(max(until - self._clock.now(), 1.0), LONGEST_WAIT)
            try:
                async with asyncio.timeout(wait):
                    await change.wait()
            except TimeoutError:
                continue

    async def _svid(self, entry: Entry) -> _Issued:
        now = self._clock.now()
        what = (entry.spiffe_id, entry.ttl)
        known = self._issued.get(what)
        if known is None or not known.svid.not_before <= now < known.renew:
            svid = await self._ca.svid(entry.spiffe_id, min(entry.ttl, MAX_TTL))
            known = self._issued[what] = _Issued(svid, now + (svid.not_after - now) / 2)
        return known

    def _federated(self, entries: Sequence[Entry]) -> dict[str, Bundle]:
        wanted = {trust_domain_of(domain) for entry in entries for domain in entry.federates_with}
        return {domain: bundle for domain, bundle in self._foreign.items() if domain in wanted}

    async def _x509_svids(self, caller: _Caller) -> tuple[Message, float]:
        entries = self._entries(caller)
        bundle = self._ca.bundle().der()
        response = workload_pb2.X509SVIDResponse()
        until = float("inf")
        for entry in entries:
            issued = await self._svid(entry)
            until = min(until, issued.renew)
            response.svids.add(
                spiffe_id=entry.spiffe_id,
                x509_svid=b"".join(issued.svid.chain),
                x509_svid_key=issued.svid.key_der(),
                bundle=bundle,
                hint=entry.hint,
            )
        for domain, foreign in self._federated(entries).items():
            response.federated_bundles[f"spiffe://{domain}"] = foreign.der()
        return response, until

    async def _x509_bundles(self, caller: _Caller) -> tuple[Message, float]:
        bundles = {self._ca.trust_domain: self._ca.bundle(), **self._federated(self._entries(caller))}
        response = workload_pb2.X509BundlesResponse(
            bundles={f"spiffe://{domain}": bundle.der() for domain, bundle in bundles.items()}
        )
        return response, float("inf")

    async def _jwt_bundles(self, caller: _Caller) -> tuple[Message, float]:
        self._entries(caller)
        keys = jwt_bundle(self._jwt_authority().authorities)
        response = workload_pb2.JWTBundlesResponse(bundles={f"spiffe://{self._ca.trust_domain}": keys})
        return response, float("inf")


def _parse(kind: type[M], message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise Invalid(f"the message is no {kind.DESCRIPTOR.full_name}: {error}") from error
