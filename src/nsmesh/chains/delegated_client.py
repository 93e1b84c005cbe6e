"""The client of a Delegated Identity API: keeps the identity of another workload of this node up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from nsmesh import rpc
from nsmesh.api import delegated_pb2, workload_pb2
from nsmesh.chains.workload_client import DIAL, WorkloadWatch
from nsmesh.core.clock import Clock
from nsmesh.core.errors import MeshError, Unauthorized, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.security.spiffe import trust_domain_of
from nsmesh.security.svid import SvidSource

log = structlog.get_logger()

SERVICE = "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/"
SVIDS, BUNDLES = SERVICE + "SubscribeToX509SVIDs", SERVICE + "SubscribeToX509Bundles"


class DelegatedWatch(WorkloadWatch):
    """Follows the identity of a process. ``pid`` gives its number, and 0 when it is gone.

    ``selectors`` name it instead, where the API does not know such a process; each is a type, a colon and a
    value.
    """

    def __init__(
        self,
        pid: Callable[[], int],
        selectors: Sequence[str],
        url: str,
        source: SvidSource,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(url, source, clock)
        self._pid = pid
        self._selectors = selectors

    async def _messages(self) -> AsyncIterator[bytes]:
        pid = self._pid()
        if not pid:
            raise Unavailable("the process is gone")
        request = asked_for(pid, self._selectors)
        client = await rpc.connect(self.url, timeout=DIAL)
        try:
            async with Scope("delegated identity", self._clock) as scope:
                both = _Both(client, scope, request)
                async for message in both.messages():
                    if self._pid() != pid:  # its number may have been another's when it was looked up
                        raise Unauthorized(f"process {pid} ended while its identity was asked for")
                    yield message
        finally:
            await client.aclose(0)


def asked_for(pid: int, selectors: Sequence[str]) -> bytes:
    """Return the request for a process: by its number, or by selectors where there are some."""
    if not selectors:
        return delegated_pb2.SubscribeToX509SVIDsRequest(pid=pid).SerializeToString()
    named = (text.partition(":") for text in selectors)
    found = [delegated_pb2.Selector(type=kind, value=value) for kind, _, value in named]
    return delegated_pb2.SubscribeToX509SVIDsRequest(selectors=found).SerializeToString()


class _Both:
    """The two streams of one identity: the SVID, and the authorities that belong to it."""

    def __init__(self, client: rpc.Client, scope: Scope, request: bytes) -> None:
        self._news = asyncio.Event()
        self._held: dict[str, bytes] = {}
        self._error: MeshError | None = None
        for method, body in ((SVIDS, request), (BUNDLES, b"")):
            scope.spawn(self._follow(client, method, body), name=method)

    async def _follow(self, client: rpc.Client, method: str, body: bytes) -> None:
        stream = client.stream(method, body)
        try:
            async for message in stream:
                self._held[method] = message
                self._news.set()
            self._error = Unavailable("the Delegated Identity API ended the stream")
        except MeshError as error:
            self._error = error
        finally:
            self._news.set()
            await stream.aclose()

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield both together, as a Workload API would have said it; raises what ends either."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._error is not None:
                raise self._error
            if len(self._held) == 2:
                yield _together(self._held[SVIDS], self._held[BUNDLES])


def _together(svids: bytes, bundles: bytes) -> bytes:
    named = delegated_pb2.SubscribeToX509BundlesResponse.FromString(bundles).ca_certificates
    known = {trust_domain_of(name): der for name, der in named.items()}
    answer = workload_pb2.X509SVIDResponse()
    for one in delegated_pb2.SubscribeToX509SVIDsResponse.FromString(svids).x509_svids:
        identity = one.x509_svid.id
        answer.svids.add(
            spiffe_id=f"spiffe://{identity.trust_domain}{identity.path}",
            x509_svid=b"".join(one.x509_svid.cert_chain),
            x509_svid_key=one.x509_svid_key,
            bundle=known.get(identity.trust_domain, b""),
            hint=one.x509_svid.hint,
        )
    return answer.SerializeToString()
