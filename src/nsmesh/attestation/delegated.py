"""Identities of a node's pods for whoever may act in their name: SPIRE's Delegated Identity API.

A delegate names a process of its node and gets the identity of that process's pod. Who is a delegate says the
node's identity agent, by SPIFFE ID; callers are told apart as those of the Workload API are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

import structlog
from google.protobuf.message import DecodeError

from nsmesh import rpc
from nsmesh.api import delegated_pb2, workload_pb2
from nsmesh.chains.delegated_client import BUNDLES, SVIDS
from nsmesh.core.call import Peer
from nsmesh.core.errors import Invalid, Unauthorized
from nsmesh.core.peering import closing
from nsmesh.security.spiffe import SpiffeId
from nsmesh.security.svid import Svid
from nsmesh.security.workload_api import WorkloadApi
from nsmesh.security.workload_names import SECURITY_HEADER

log = structlog.get_logger()

KNOWN = 3.0
"""Seconds that a pod may take to be known here: its delegate may have heard of it first."""
_HEADER = ((SECURITY_HEADER, "true"),)


class Delegated:
    """Serves the API out of ``api``, to callers whose SPIFFE ID is one of ``delegates``.

    ``kept``: a namespace whose identities are given to nobody else: that of the mesh itself.
    """

    def __init__(
        self,
        api: WorkloadApi,
        attestor: Callable[[Peer], frozenset[str]],
        delegates: Collection[str],
        *,
        kept: str,
    ) -> None:
        self._api = api
        self._attest = attestor
        self._delegates = frozenset(delegates)
        self._kept = f"/ns/{kept}/"

    def methods(self) -> dict[str, rpc.Method]:
        """Return what is served."""
        return {SVIDS: rpc.ServerStream(self.svids), BUNDLES: rpc.ServerStream(self.bundles)}

    async def svids(self, call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:
        """Yield the identity of the pod that a process belongs to, now and at each change."""
        delegate = await self._delegate(call.peer)
        try:
            pid = delegated_pb2.SubscribeToX509SVIDsRequest.FromString(body).pid
        except DecodeError as error:
            raise Invalid(f"the message is no SubscribeToX509SVIDsRequest: {error}") from error
        peer = Peer(pid=pid)
        for spiffe_id in await self._ids(peer):
            if SpiffeId.parse(spiffe_id).path.startswith(self._kept):
                raise Unauthorized(f"{delegate} may not act for {spiffe_id}: it is of the mesh itself")
            log.info("identity for a delegate", spiffe_id=spiffe_id, delegate=delegate)
        async for message in self._api.fetch_x509_svid(_HEADER, peer, b""):
            yield _handed_on(message)

    async def bundles(self, call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:  # noqa: ARG002 - empty
        """Yield the authorities of the delegate's trust domain, now and at each change."""
        await self._delegate(call.peer)
        async for message in self._api.fetch_x509_bundles(_HEADER, call.peer, b""):
            found = workload_pb2.X509BundlesResponse.FromString(message).bundles
            answer = delegated_pb2.SubscribeToX509BundlesResponse(ca_certificates=dict(found))
            yield answer.SerializeToString()

    async def _delegate(self, peer: Peer) -> str:
        """Return the SPIFFE ID of a caller that is a delegate; raises Unauthorized.

        It has to get that identity itself, so that whoever signs has looked whether it is the one.
        """
        found = await self._ids(peer)
        own = next((one for one in found if one in self._delegates), "")
        if not own:
            raise Unauthorized(
                f"{', '.join(found)} may not act for others",
                remedy="name it in NSM_AUTHORIZED_DELEGATES of the identity agent",
            )
        async with closing(self._api.fetch_x509_svid(_HEADER, peer, b"")) as own_svids:
            await anext(own_svids)
        return own

    async def _ids(self, peer: Peer) -> list[str]:
        """Return the SPIFFE IDs of a process's pod, as soon as it is known; raises Unauthorized."""
        selectors = self._attest(peer)
        if not selectors:
            raise Unauthorized(f"process {peer.pid} is of no pod of this node")
        try:
            async with asyncio.timeout(KNOWN):
                while True:
                    change = self._api.entries.change
                    if found := self._api.entries.matching(selectors):
                        return [entry.spiffe_id for entry in found]
                    await change.wait()
        except TimeoutError:
            who = ", ".join(sorted(selectors))
            raise Unauthorized(f"the pod of process {peer.pid} ({who}) is not known on this node") from None


def _handed_on(message: bytes) -> bytes:
    """Return what the Workload API says as the Delegated Identity API says it."""
    found = workload_pb2.X509SVIDResponse.FromString(message)
    answer = delegated_pb2.SubscribeToX509SVIDsResponse(federates_with=sorted(found.federated_bundles))
    for one in found.svids:
        svid = Svid.from_der(one.x509_svid, one.x509_svid_key)
        identity = SpiffeId.parse(one.spiffe_id)
        answer.x509_svids.add(
            x509_svid=delegated_pb2.X509Svid(
                cert_chain=svid.chain,
                id=delegated_pb2.SpiffeId(trust_domain=identity.trust_domain, path=identity.path),
                expires_at=int(svid.not_after),
                hint=one.hint,
            ),
            x509_svid_key=one.x509_svid_key,
        )
    return answer.SerializeToString()
