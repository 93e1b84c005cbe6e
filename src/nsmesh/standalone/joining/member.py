"""A host that joined: it keeps its identity, hears of the other nodes, and lets the first host sign."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.core.clock import Clock
from nsmesh.core.errors import MeshError, Refused, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.security.signing_request import make_request
from nsmesh.security.spiffe import Leaf
from nsmesh.security.svid import Svid, SvidSource
from nsmesh.security.verify import Bundle
from nsmesh.standalone.joining import asking, methods
from nsmesh.standalone.joining.mesh_port import parsed
from nsmesh.standalone.joining.names import node_id
from nsmesh.standalone.joining.place import Place
from nsmesh.standalone.joining.record import Record, check_up
from nsmesh.standalone.joining.roster import Removed

log = structlog.get_logger()

BEAT = 2.0
"""Seconds between two signs of life."""
CALL = 5.0
"""Seconds that the first host has to answer."""


class Member:
    """Implements ``Hosts`` and :class:`nsmesh.security.issuer.Issuer` on a host that joined.

    ``tell`` hears what happens, ``alarm`` what is bad; ``removed`` is called once when the first host says
    that this is no node any more; ``changed`` when identity or bundle changed,
    ``heard`` when nodes came or went.
    """

    joined = True

    def __init__(self, record: Record, path: Path, trust_domain: str, scope: Scope) -> None:
        self.record = record
        self.trust_domain = trust_domain
        self.source = SvidSource(clock=scope.clock)
        self.reached = asyncio.Event()
        self.tell: Callable[[str], None] = lambda _text: None
        self.alarm: Callable[[MeshError], None] = lambda _error: None
        self.removed: Callable[[], None] = lambda: None
        self.changed: Callable[[], None] = lambda: None
        self.heard: Callable[[], None] = lambda: None
        self._path = path
        self._clock: Clock = scope.clock
        self._scope = scope
        self._out = Removed()
        self._nodes: Sequence[join_pb2.Node] = ()
        self._away = False
        self._pool = rpc.Pool(identity=self.source, timeout=CALL)
        svid, bundle = record.keys(trust_domain)
        self.source.update(svid, [bundle])

    @property
    def place(self) -> Place:
        """This host."""
        return self.record.place

    @property
    def first(self) -> str:
        """Name of the first host's node."""
        return self.record.first_name

    @property
    def away(self) -> bool:
        """Whether the first host does not answer just now."""
        return self._away

    def nodes(self) -> Sequence[join_pb2.Node]:
        """Return all nodes, as the first host told them last."""
        return self._nodes

    def refuses(self, leaf: Leaf) -> str:
        """Say whether a peer is of a node that was removed."""
        return self._out.refuses(leaf)

    # -- identities ----------------------------------------------------------------------------------------

    def bundle(self) -> Bundle:
        """Return the authorities of the mesh, as they were told last."""
        return self.source.bundles[self.trust_domain]

    def maintain(self) -> bool:
        """Nothing is due here: the CA is on the first host."""
        return False

    async def svid(self, spiffe_id: str, ttl: float) -> Svid:  # noqa: ARG002 - the first host says how long
        """Return this node's own SVID, or a new one for what lives on it; raises MeshError."""
        if spiffe_id == node_id(self.trust_domain, self.record.name):
            return self.source.svid
        key = ec.generate_private_key(ec.SECP256R1())
        request = join_pb2.SignRequest(request=make_request(key, spiffe_id))
        body = await self._call(methods.SIGN, request.SerializeToString())
        answer = parsed(join_pb2.Identity, body)
        return asking.taken(answer, key, self.trust_domain, self._clock)[0]

    async def _call(self, method: str, body: bytes) -> bytes:
        client = await self._pool.get(self.record.first.address.mesh)
        asking.check_first(client, self.trust_domain)
        limit = self._clock.monotonic() + CALL
        return (await client.unary(method, body, deadline=limit)).message

    # -- signs of life -------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Come back with an identity that is valid: at once, or as soon as the first host gives one.

        Raises Refused where it will not.
        """
        while self.source.svid.not_after <= self._clock.now():
            try:
                await self._renew()
            except Refused:
                raise
            except MeshError as error:
                log.warning("this node's identity has ended, and is not renewed", why=str(error))
                await asyncio.sleep(BEAT)

    async def run(self) -> None:
        """Tell the first host over and over that this node lives, until cancelled or removed."""
        while True:
            try:
                await self._beat()
                if not self.source.svid.not_before <= self._clock.now() < self._half():
                    await self._renew()
            except Refused as error:
                self.record.removed = True
                try:
                    self.record.save(self._path)
                finally:
                    self.alarm(error)
                    self.removed()
                return
            except MeshError as error:
                self._lost(error)
            else:
                self._found()
            await asyncio.sleep(BEAT)

    def _half(self) -> float:
        svid = self.source.svid
        return (svid.not_before + svid.not_after) / 2

    def _lost(self, error: MeshError) -> None:
        if not self._away:
            self._away = True
            what = f"the first host {self.first} does not answer: {error.what}"
            self.alarm(Unavailable(what, remedy="wires stay; new ones are made when it is back"))

    def _found(self) -> None:
        if self._away:
            self._away = False
            self.tell(f"the first host {self.first} answers again")
        self.reached.set()

    async def _beat(self) -> None:
        news = parsed(join_pb2.News, await self._call(methods.BEAT, b""))
        before = [node.name for node in self._nodes]
        self._nodes = list(news.nodes)
        if before != [node.name for node in self._nodes]:
            self.heard()
        self._out.at = dict(news.removed)
        bundle = Bundle.from_der(self.trust_domain, news.bundle)
        if bundle != self.bundle():
            self._take(self.source.svid, bundle)

    async def _renew(self) -> None:
        self._take(*await asking.renewed(self.record, self.trust_domain, self.source, self._clock))
        log.info("identity of this node renewed", not_after=self.source.svid.not_after)

    def _take(self, svid: Svid, bundle: Bundle) -> None:
        self.record.put(svid, bundle)
        self.record.save(self._path)
        self.source.update(svid, [bundle])
        self.changed()

    async def aclose(self) -> None:
        """End its connections."""
        await self._pool.aclose()


@asynccontextmanager
async def running_member(path: Path, trust_domain: str, clock: Clock) -> AsyncIterator[Member]:
    """Be the node that ``path`` says while the block runs; raises Refused where it is none any more."""
    record = check_up(path)
    async with Scope("membership", clock) as scope:
        member = Member(record, path, trust_domain, scope)
        try:
            await member.ready()
            scope.spawn(member.run(), name="signs of life")
            yield member
        finally:
            await member.aclose()
