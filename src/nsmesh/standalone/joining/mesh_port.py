"""The mesh port of the first host: takes hosts in, renews their identities, signs for what lives on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from google.protobuf.message import DecodeError

import nsmesh
from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.core.clock import Clock
from nsmesh.core.errors import Conflict, Invalid, Refused, Unauthorized
from nsmesh.model.names import name_problem
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.join_token import pin_of
from nsmesh.security.signing_request import read_request, renews, text_of
from nsmesh.security.spiffe import SpiffeId, read_leaf
from nsmesh.standalone.joining import methods
from nsmesh.standalone.joining.names import node_id, node_of
from nsmesh.standalone.joining.place import Place
from nsmesh.standalone.joining.roster import TTL, Member, Roster
from nsmesh.standalone.joining.tokens import Tokens

log = structlog.get_logger()

SKEW = 30.0
"""Seconds by which the clocks of two hosts may differ: tokens and certificates have no leeway."""


@dataclass(frozen=True, slots=True)
class MeshPort:
    """What the first host serves to the others.

    ``tell`` hears what happened, and each of ``out`` which node is out of the mesh.
    """

    place: Place
    mesh: str
    authority: CertificateAuthority
    roster: Roster
    tokens: Tokens
    clock: Clock
    tell: Callable[[str], None]
    out: list[Callable[[Member], None]] = field(default_factory=list)

    def gone(self, member: Member) -> None:
        """Tell that a node is out of the mesh."""
        for told in self.out:
            told(member)

    def methods(self) -> dict[str, rpc.Method]:
        """Return what to serve."""

        def unary(kind: Any, work: Callable[[rpc.ServerCall, Any], Awaitable[Any]]) -> rpc.Unary:
            async def serve(call: rpc.ServerCall, body: bytes) -> bytes:
                answer: bytes = (await work(call, parsed(kind, body))).SerializeToString()
                return answer

            return rpc.Unary(serve)

        return {
            methods.JOIN: unary(join_pb2.Signed, self._join),
            methods.RENEW: unary(join_pb2.Signed, self._renew),
            methods.BEAT: unary(join_pb2.Empty, self._beat),
            methods.SIGN: unary(join_pb2.SignRequest, self._sign),
            methods.LEAVE: unary(join_pb2.Empty, self._leave),
        }

    def nodes(self) -> list[join_pb2.Node]:
        """Return all nodes, this host's first."""
        own = join_pb2.Node(
            name=self.place.name,
            address=self.place.address.ip,
            manager_url=self.place.address.manager,
            version=nsmesh.__version__,
            seen=self.clock.now(),
        )
        return [own, *(member.message() for member in self.roster.members.values())]

    # -- without an identity: proofs -----------------------------------------------------------------------

    async def _join(self, call: rpc.ServerCall, signed: join_pb2.Signed) -> join_pb2.Identity:  # noqa: ARG002 - the face asks for it
        claim = parsed(join_pb2.Claim, signed.claim)
        pin = pin_of(self.authority.active.certificate)
        self.tokens.check(claim.token_id, pin, signed.claim, signed.proof)
        self._check(claim)
        if problem := name_problem(claim.name):
            raise Invalid(problem, remedy="choose another one with --name")
        if claim.name == self.place.name:
            raise Conflict(
                f"{claim.name} is the name of the first host's own node",
                remedy="join with another one: --name",
            )
        self.roster.free(claim.name)
        key = self._key(claim)
        # certificates say whole seconds, and this one must be told from those of a node that was removed
        if self.roster.removed.at.get(claim.name, 0.0) > self.clock.now() - 1:
            await asyncio.sleep(1)
            self.roster.free(claim.name)
            self.tokens.check(claim.token_id, pin, signed.claim, signed.proof)
        self.tokens.use(claim.token_id, claim.name)
        self.roster.put(self._member(claim, [key], self.clock.now()))
        self.tell(f"node {claim.name} joined, at {claim.address}")
        return self._issued(claim.request)

    async def _renew(self, call: rpc.ServerCall, signed: join_pb2.Signed) -> join_pb2.Identity:  # noqa: ARG002 - the face asks for it
        claim = parsed(join_pb2.Claim, signed.claim)
        member = self._known(claim.name)
        proved = next((key for key in member.keys if renews(key, signed.claim, signed.proof)), None)
        if proved is None:
            raise _no_node(claim.name)
        self._check(claim)
        key = self._key(claim)
        # if our answer is lost, the node still has the key that it had
        self.roster.put(self._member(claim, [key, proved], member.joined))
        return self._issued(claim.request)

    def _check(self, claim: join_pb2.Claim) -> None:
        """Raise what keeps the two hosts from being of one mesh."""
        if claim.mesh != self.mesh:
            raise Refused(
                f"this is the mesh {self.mesh}, not {claim.mesh}", remedy=f"nsm --mesh {self.mesh} join"
            )
        ours, theirs = nsmesh.__version__, claim.version
        if _line(ours) != _line(theirs):
            raise Refused(
                f"{self.place.name} runs nsmesh {ours}, and {claim.name} {theirs or 'another version'}",
                remedy="install the same version on both hosts",
            )
        skew = claim.time - self.clock.now()
        if not abs(skew) <= SKEW:
            raise Refused(
                f"the clock of {claim.name} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} "
                f"that of {self.place.name}",
                remedy=f"set both, by NTP for example: {SKEW:.0f} s apart are the most",
            )

    def _key(self, claim: join_pb2.Claim) -> str:
        identity, key = read_request(claim.request)
        if str(identity) != node_id(self.authority.trust_domain, claim.name):
            raise Unauthorized(f"{claim.name} cannot have the identity {identity}")
        return text_of(key)

    def _member(self, claim: join_pb2.Claim, keys: list[str], joined: float) -> Member:
        return Member(
            claim.name, claim.address[:64], claim.manager_url[:96], claim.version[:32], joined, keys
        )

    def _issued(self, request: bytes) -> join_pb2.Identity:
        identity, key = read_request(request)
        return join_pb2.Identity(
            svid=self.authority.sign(key, str(identity), TTL),
            bundle=self.authority.bundle().der(),
            registry_url=self.place.address.registry,
            nodes=self.nodes(),
        )

    # -- with the identity of a node -----------------------------------------------------------------------

    def _known(self, name: str) -> Member:
        member = self.roster.members.get(name)
        if member is None:
            raise _no_node(name)
        return member

    def _caller(self, call: rpc.ServerCall) -> Member:
        """Return the node that calls; raises Unauthorized or Refused."""
        if not call.peer.spiffe_id:
            raise Unauthorized("nodes alone may call this, by their identity")
        name, rest = node_of(SpiffeId.parse(call.peer.spiffe_id))
        if not name or rest:
            raise Unauthorized(f"{call.peer.spiffe_id} is no node that joined")
        if self.roster.removed.refuses(read_leaf(call.peer.certificate)):
            raise _no_node(name)
        return self._known(name)

    async def _beat(self, call: rpc.ServerCall, request: join_pb2.Empty) -> join_pb2.News:  # noqa: ARG002 - the face asks for it
        member = self._caller(call)
        if self.roster.saw(member.name):
            self.tell(f"node {member.name} is there")
        removed = self.roster.removed.at
        return join_pb2.News(nodes=self.nodes(), bundle=self.authority.bundle().der(), removed=removed)

    async def _sign(self, call: rpc.ServerCall, request: join_pb2.SignRequest) -> join_pb2.Identity:
        member = self._caller(call)
        identity, _ = read_request(request.request)
        name, rest = node_of(identity)
        if name != member.name or not rest or identity.trust_domain != self.authority.trust_domain:
            raise Unauthorized(f"the node {member.name} cannot vouch for {identity}")
        return self._issued(request.request)

    async def _leave(self, call: rpc.ServerCall, request: join_pb2.Empty) -> join_pb2.Empty:  # noqa: ARG002 - the face asks for it
        member = self._caller(call)
        gone = self.roster.remove(member.name)
        self.tell(f"node {member.name} left")
        asyncio.get_running_loop().call_later(0.2, self.gone, gone)  # it gets our answer first
        return join_pb2.Empty()


def _line(version: str) -> list[str]:
    """Return what must be the same of two versions: those of one line speak with each other."""
    return version.split(".")[:2]


def _no_node(name: str) -> Refused:
    return Refused(
        f"{name} is no node of this mesh any more",
        remedy="let it join again, with a new token: nsm token create",
    )


def parsed(kind: Any, body: bytes) -> Any:
    """Return a message; raises Invalid."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Invalid(f"the message is no {kind.DESCRIPTOR.full_name}: {error}") from error
