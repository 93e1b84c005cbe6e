"""The CA of a cluster: signs for pods, for agents that prove by a token which node they are on.

It believes no agent a pod of another node: whoever took over one node speaks for the pods of that node alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.attestation.keeping import Keeper, Rotation, opened
from nsmesh.attestation.names import POD, SIGN, TOKEN, Member, daemon_set_of, member_of, pod_of
from nsmesh.attestation.settings import AuthoritySettings
from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Invalid, NotFound, Unauthorized
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import Api, connected, in_pod
from nsmesh.security.ca import TTL, CertificateAuthority
from nsmesh.security.signing_request import read_request
from nsmesh.standalone.joining.pinned import PortIdentity

log = structlog.get_logger()

REVIEWED = 60.0
"""Seconds for which a token that was found good is not asked about again."""
_NODE = "authentication.kubernetes.io/node-name"
_CORE = "/api/v1/namespaces"
_APPS = "/apis/apps/v1/namespaces"
_NAME = re.compile(r"[a-z0-9.-]{1,253}")


class Authority:
    """Serves :data:`SIGN`."""

    def __init__(
        self, server: Api, ca: CertificateAuthority, settings: AuthoritySettings, clock: Clock
    ) -> None:
        self._server = server
        self._ca = ca
        self._settings = settings
        self._clock = clock
        self._nodes: dict[bytes, tuple[str, float]] = {}

    async def sign(self, call: rpc.ServerCall, body: bytes) -> bytes:
        """Return an SVID for the pod that the request names; raises Unauthorized or Invalid."""
        try:
            request = join_pb2.SignRequest.FromString(body).request
        except DecodeError as error:
            raise Invalid(f"the message is no SignRequest: {error}") from error
        metadata = dict(call.metadata)
        node = await self._node(metadata.get(TOKEN, ""))
        identity, key = read_request(request)
        pod, member = pod_of(identity), member_of(identity)
        if not (pod or member) or identity.trust_domain != self._ca.trust_domain:
            raise Unauthorized(f"the agent of node {node} cannot vouch for {identity}: it is no pod's")
        if pod:
            await self._checked(node, *pod)
        elif member:
            await self._check_member(node, member, metadata.get(POD, ""))
        answer = join_pb2.Identity(
            svid=self._ca.sign(key, str(identity), TTL), bundle=self._ca.bundle().der()
        )
        log.info("signed", spiffe_id=str(identity), node=node)
        return answer.SerializeToString()

    async def _node(self, header: str) -> str:
        """Return the node whose agent a token is of, as the API server says; raises Unauthorized."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("the CA signs for agents alone", remedy="send a service-account token")
        digest = hashlib.sha256(token.encode()).digest()
        now = self._clock.monotonic()
        self._nodes = {one: known for one, known in self._nodes.items() if known[1] > now}
        if digest not in self._nodes:
            self._nodes[digest] = (await self._reviewed(token), now + REVIEWED)
        return self._nodes[digest][0]

    async def _reviewed(self, token: str) -> str:
        audience = self._settings.audience
        review = await self._server.call(
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [audience]},
            },
        )
        status = review.get("status", {})
        user = status.get("user", {})
        if not status.get("authenticated") or audience not in status.get("audiences", ()):
            raise Unauthorized(
                f"the agent's token is not good: {status.get('error', 'it is for another audience')}",
                remedy=f"project a service-account token with the audience {audience}",
            )
        wanted = f"system:serviceaccount:{self._settings.namespace}:{self._settings.agent_account}"
        if user.get("username") != wanted:
            raise Unauthorized(f"{user.get('username')} is no agent: agents are {wanted}")
        nodes = user.get("extra", {}).get(_NODE, [])
        if len(nodes) != 1:
            raise Unauthorized(
                "the agent's token does not say its node", remedy="Kubernetes 1.30 or later binds it to one"
            )
        return str(nodes[0])

    async def _checked(self, node: str, namespace: str, name: str) -> dict[str, Any]:
        """Return a pod that runs on the node, as the API server has it; raises Unauthorized."""
        try:
            pod: dict[str, Any] = await self._server.call("GET", f"{_CORE}/{namespace}/pods/{name}")
        except NotFound:
            raise Unauthorized(f"there is no pod {namespace}/{name}") from None
        if pod.get("spec", {}).get("nodeName") != node:
            raise Unauthorized(f"the pod {namespace}/{name} does not run on node {node}")
        return pod

    async def _check_member(self, node: str, member: Member, name: str) -> None:
        """Demand that a pod of this node is one of the DaemonSet; raises Unauthorized.

        A pod says itself whose it is, so the DaemonSet is asked as well. What is left is who may create pods
        in its namespace: they may use each of its service accounts, too.
        """
        if member.node != node:
            raise Unauthorized(f"the agent of node {node} cannot vouch for node {member.node}")
        if not _NAME.fullmatch(name):
            raise Unauthorized(f"the agent of node {node} names no pod of {member.daemon_set}")
        pod = await self._checked(node, member.namespace, name)
        where = f"{_APPS}/{member.namespace}/daemonsets/{member.daemon_set}"
        try:
            found = await self._server.call("GET", where)
        except NotFound:
            raise Unauthorized(f"there is no DaemonSet {member.namespace}/{member.daemon_set}") from None
        owner = (member.daemon_set, found["metadata"]["uid"])
        if daemon_set_of(pod) != owner or not _selects(found["spec"], pod):
            raise Unauthorized(
                f"the pod {member.namespace}/{name} is none of the DaemonSet {member.daemon_set}"
            )


def _selects(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    """Whether a DaemonSet's selector takes a pod, by its labels: else its controller lets go of it."""
    selector, labels = spec["selector"], pod["metadata"].get("labels") or {}
    wanted = selector.get("matchLabels") or {}
    return bool(wanted.items() <= labels.items()) and all(
        _fulfils(labels, one) for one in selector.get("matchExpressions") or ()
    )


def _fulfils(labels: Mapping[str, str], expression: Mapping[str, Any]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    kinds = {
        "In": key in labels and labels[key] in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }
    return kinds.get(expression["operator"], False)


@asynccontextmanager
async def running_authority(settings: AuthoritySettings, stop: asyncio.Event) -> AsyncIterator[rpc.Server]:
    """Run the CA of a cluster while the block runs; the block begins once the API server has answered."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        account = in_pod(Path(settings.service_account_folder))
        server = await stack.enter_async_context(connected(account))
        keeper = Keeper(server, settings)
        ca = await opened(keeper, clock, stop)
        authority = Authority(server, ca, settings, clock)
        scope = await stack.enter_async_context(Scope("identity authority", clock))
        methods = {SIGN: rpc.Unary(authority.sign)}
        served = await stack.enter_async_context(
            rpc.serve(settings.listen_on, methods, identity=PortIdentity(ca, clock))
        )
        rotation = Rotation(ca, keeper)
        scope.spawn(rotation.run(), name="rotation of the CA")
        scope.spawn(rotation.follow(clock), name="steps of the clock")
        log.info("CA ready", url=served.url, trust_domain=ca.trust_domain)
        yield served


async def serve_authority(settings: AuthoritySettings, stop: asyncio.Event) -> None:
    """Run the CA of a cluster until ``stop``."""
    async with running_authority(settings, stop):
        await stop.wait()
