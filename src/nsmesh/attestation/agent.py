"""The agent of a node: tells pods apart by the cgroup of who calls, and lets the CA sign for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.attestation.delegated import Delegated
from nsmesh.attestation.names import POD, SIGN, TOKEN, id_of
from nsmesh.attestation.settings import AgentSettings
from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core.call import Peer
from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Invalid, MeshError, NotFound, Unauthorized
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import Api, Object, collection, connected, in_pod
from nsmesh.kubernetes.pod_processes import uid_of_process
from nsmesh.kubernetes.reflector import Reflector
from nsmesh.security.entries import Entries, Entry
from nsmesh.security.join_token import pin_of
from nsmesh.security.signing_request import make_request
from nsmesh.security.svid import Svid
from nsmesh.security.verify import Bundle
from nsmesh.security.workload_api import WorkloadApi
from nsmesh.standalone.joining.asking import taken
from nsmesh.standalone.joining.pinned import Pinned

log = structlog.get_logger()

CALL = 5.0
"""Seconds that the CA has to answer, and to take a connection."""
PAUSE = 0.5
"""Seconds between two tries of what failed."""
_UID = "k8s:pod-uid:"


def attest_pod(peer: Peer) -> frozenset[str]:
    """Return the selector of the pod that a caller belongs to; none for one that is of no pod."""
    uid = uid_of_process(peer.pid) if peer.pid else ""
    return frozenset({_UID + uid}) if uid else frozenset()


class Signer:
    """Implements :class:`nsmesh.security.issuer.Issuer` by the CA of the cluster.

    ``changed`` is called when the bundle has changed; ``pod_for`` gives the name of a pod that an ID is of.
    ``published`` gives the bundle that the CA has published, for when it is another one than it was.
    """

    def __init__(
        self,
        settings: AgentSettings,
        bundle: Bundle,
        published: Callable[[], Awaitable[Bundle]],
        clock: Clock,
    ) -> None:
        self.trust_domain = settings.trust_domain
        self.changed: Callable[[], None] = lambda: None
        self.pod_for: Callable[[str], str] = lambda spiffe_id: spiffe_id.rpartition("/")[2]
        self._settings = settings
        self._bundle = bundle
        self._published = published
        self._clock = clock

    def bundle(self) -> Bundle:
        """Return the authorities of the cluster, as the CA told them last."""
        return self._bundle

    def maintain(self) -> bool:
        """Nothing is due here: the CA is elsewhere."""
        return False

    async def svid(self, spiffe_id: str, ttl: float) -> Svid:  # noqa: ARG002 - the CA says how long
        """Return a new SVID for a pod of this node; raises MeshError."""
        try:
            return await self._signed(spiffe_id)
        except Unauthorized as error:
            try:
                found = await self._published()
            except MeshError:
                raise error from None
            if found == self._bundle:
                raise
        # by a clock that was set, the CA had no time to let us know its next authority before it signed
        log.warning("the CA signs with an authority that was not known here")
        self._take(found)
        return await self._signed(spiffe_id)

    def _take(self, bundle: Bundle) -> None:
        if bundle != self._bundle:
            self._bundle = bundle
            self.changed()

    async def _signed(self, spiffe_id: str) -> Svid:
        key = ec.generate_private_key(ec.SECP256R1())
        request = join_pb2.SignRequest(request=make_request(key, spiffe_id))
        pins = [pin_of(one) for one in self._bundle.authorities]
        url = self._settings.authority_url
        client = await rpc.connect(url, identity=Pinned(pins, url, self._clock), timeout=CALL)
        try:
            token = Path(self._settings.token_file).read_text().strip()
            reply = await client.unary(
                SIGN,
                request.SerializeToString(),
                metadata=((TOKEN, f"Bearer {token}"), (POD, self.pod_for(spiffe_id))),
                deadline=asyncio.get_running_loop().time() + CALL,
            )
        except OSError as error:
            raise NotFound(
                f"the token {self._settings.token_file} cannot be read: {error}",
                remedy="project a service-account token there",
            ) from error
        finally:
            await client.aclose(0)
        answer = join_pb2.Identity.FromString(reply.message)
        svid, bundle = taken(answer, key, self.trust_domain, self._clock)
        self._take(bundle)
        return svid


class Pods:
    """The pods of a node as entries of a Workload API; while the API server is away, all entries stay."""

    def __init__(self, server: Api, settings: AgentSettings, entries: Entries) -> None:
        self._settings = settings
        self._entries = entries
        self._known: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        chosen = {"fieldSelector": f"spec.nodeName={settings.node_name}"}
        self.reflector = Reflector(server, collection("v1", "pods"), self, chosen)

    def pod_for(self, spiffe_id: str) -> str:
        """Return the name of the pod that an ID is of: of several that share it, the one that came last."""
        found = [uid for uid, entry in self._known.items() if entry.spiffe_id == spiffe_id]
        return self._names[found[-1]] if found else ""

    def changed(self, item: Object) -> None:
        """Take a pod; what it is called never changes."""
        meta = item["metadata"]
        if meta["uid"] not in self._known:
            spiffe_id = id_of(self._settings.trust_domain, item)
            entry = self._known[meta["uid"]] = Entry(frozenset({_UID + meta["uid"]}), spiffe_id)
            self._names[meta["uid"]] = meta["name"]
            self._entries.register(entry)

    def deleted(self, item: Object) -> None:
        """Take a pod's end."""
        self._drop(item["metadata"]["uid"])

    def replace(self, items: list[Object], version: str) -> None:  # noqa: ARG002 - a Sink's face
        """Take all pods of the node."""
        present = {pod["metadata"]["uid"] for pod in items}
        for uid in [uid for uid in self._known if uid not in present]:
            self._drop(uid)
        for pod in items:
            self.changed(pod)

    def _drop(self, uid: str) -> None:
        entry = self._known.pop(uid, None)
        if entry is not None:
            del self._names[uid]
            self._entries.remove(entry)


async def published(server: Api, settings: AgentSettings) -> Bundle:
    """Return the certificates that the CA has published; raises MeshError."""
    path = f"{collection('v1', 'configmaps', settings.namespace)}/{settings.bundle_name}"
    found = await server.call("GET", path)
    pem = (found.get("data") or {}).get("bundle.pem", "")
    return Bundle.from_pem(settings.trust_domain, pem.encode())


async def read_bundle(server: Api, settings: AgentSettings) -> Bundle:
    """Return the certificates of the CA, as soon as it has published them."""
    while True:
        try:
            return await published(server, settings)
        except MeshError as error:
            log.info("no certificates of the CA yet", error=str(error))
            await asyncio.sleep(PAUSE)


@asynccontextmanager
async def running_agent(settings: AgentSettings) -> AsyncIterator[Entries]:
    """Run the agent of a node while the block runs; yields the pods that it knows."""
    if not settings.node_name:
        raise Invalid("NODE_NAME is not set", remedy="set it from spec.nodeName, by the downward API")
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        account = in_pod(Path(settings.service_account_folder))
        server = await stack.enter_async_context(connected(account))
        bundle = await read_bundle(server, settings)
        signer = Signer(settings, bundle, lambda: published(server, settings), clock)
        entries = Entries()
        signer.changed = entries.announce
        api = WorkloadApi(signer, entries, clock=clock, attestor=attest_pod)
        pods = Pods(server, settings, entries)
        signer.pod_for = pods.pod_for
        scope = await stack.enter_async_context(Scope("identity agent", clock))
        await stack.enter_async_context(served_workload_api(api, settings.listen_on))
        if settings.delegated_listen_on:
            delegated = Delegated(api, attest_pod, settings.authorized_delegates, kept=settings.namespace)
            await stack.enter_async_context(rpc.serve(settings.delegated_listen_on, delegated.methods()))
        scope.spawn(pods.reflector.run(), name="pods")
        yield entries


async def serve_agent(settings: AgentSettings, stop: asyncio.Event) -> None:
    """Run the agent of a node until ``stop``."""
    async with running_agent(settings):
        await stop.wait()
