"""The CA on a real API server, with no more rights than the manifests give: whom it signs for."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes_lab import PROJECT
from lightkube.config.kubeconfig import KubeConfig

from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.attestation.agent import Pods, Signer, read_bundle
from nsmesh.attestation.api_server import ApiServer
from nsmesh.attestation.authority import Authority, Keeper
from nsmesh.attestation.names import POD, SIGN, TOKEN, Member, member_id, pod_id
from nsmesh.attestation.settings import AgentSettings, AuthoritySettings
from nsmesh.core.call import Peer
from nsmesh.core.clock import SystemClock
from nsmesh.core.errors import Conflict, Invalid, Unauthorized
from nsmesh.security.entries import Entries
from nsmesh.security.signing_request import make_request
from nsmesh.standalone.joining.pinned import PortIdentity

RIGHTS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
AGENT, CA = "nsm-identity-agent", "nsm-identity-authority"


def pod(name: str, node: str, account: str = "default") -> dict[str, Any]:
    containers = [{"name": "c", "image": "none"}]
    spec = {"nodeName": node, "serviceAccountName": account, "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@dataclass
class Cluster:
    """Two nodes, an agent's pod on the first, a pod on each, and the accounts with their rights."""

    server: Any
    namespace: str
    folder: Path

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.server.kubectl("-n", self.namespace, *arguments, **more)

    def apply(self, *items: dict[str, Any]) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(items)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(whole))

    def token(self, account: str, audience: str = "nsm-ca", bound_to: str = "") -> str:
        words = ["--bound-object-kind=Pod", f"--bound-object-name={bound_to}"] if bound_to else []
        return self.kubectl("create", "token", account, f"--audience={audience}", *words).strip()

    def api(self, account: str) -> ApiServer:
        """Give the API server to an account: what the process calls it by."""
        folder = self.folder / account
        folder.mkdir(exist_ok=True)
        shutil.copy(self.server.folder / "pki/ca.crt", folder)
        token = self.kubectl("create", "token", account).strip()
        (folder / "token").write_text(token)
        config = KubeConfig.from_file(str(self.server.kubeconfig)).get()
        url = urlsplit(config.cluster.server)
        return ApiServer(url.hostname, url.port, folder)

    def settings(self) -> AuthoritySettings:
        return AuthoritySettings(namespace=self.namespace, folder=str(self.folder / "ca"))


@contextmanager
def prepared(api_server: Any, api_namespace: str, tmp_path: Path) -> Iterator[Cluster]:
    """Give a namespace with the accounts and rights of the manifests."""
    cluster = Cluster(api_server, api_namespace, tmp_path)
    rights = []
    for item in yaml.safe_load_all((PROJECT / "deploy/manifests/nsmesh.yaml").read_text()):
        if item and item["kind"] in RIGHTS and "identity" in item["metadata"]["name"]:
            meta = item["metadata"]
            if "namespace" in meta:
                meta["namespace"] = api_namespace
            for subject in item.get("subjects", ()):
                subject["namespace"] = api_namespace
            if item["kind"] == "ClusterRoleBinding":
                meta["name"] += f"-{api_namespace}"
            rights.append(item)
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        for name in (AGENT, CA, "default", "other")
    ]
    nodes = [f"{api_namespace}-{number}" for number in (1, 2)]
    cluster.apply(
        *({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in nodes),
        *accounts,
        *rights,
        pod("agent", nodes[0], AGENT),
        pod("imposter", nodes[0], "other"),
        pod("near", nodes[0]),
        pod("far", nodes[1]),
    )
    yield cluster
    api_server.kubectl("delete", "node", *nodes)
    for name in (AGENT, CA):
        api_server.kubectl("delete", "clusterrolebinding", f"{name}-{api_namespace}")


@pytest.fixture
def attested(api_server, api_namespace, tmp_path) -> Iterator[Cluster]:
    """Give the test's own namespace, prepared."""
    with prepared(api_server, api_namespace, tmp_path) as cluster:
        yield cluster


@asynccontextmanager
async def authority_of(cluster: Cluster) -> AsyncIterator[tuple[Authority, str]]:
    """Give the CA, and the URL where it is served."""
    clock = SystemClock()
    api = cluster.api(CA)
    ca = await Keeper(api, cluster.settings()).opened(clock)
    authority = Authority(api, ca, cluster.settings(), clock)
    served = rpc.serve(
        "tcp://127.0.0.1:0", {SIGN: rpc.Unary(authority.sign)}, identity=PortIdentity(ca, clock)
    )
    async with served as server:
        yield authority, server.url


def asked(spiffe_id: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return join_pb2.SignRequest(request=make_request(key, spiffe_id)).SerializeToString()


async def sign(authority: Authority, token: str, spiffe_id: str, of_pod: str = "") -> bytes:
    metadata = ((TOKEN, f"Bearer {token}"),) if token else ()
    metadata += ((POD, of_pod),) if of_pod else ()
    call = rpc.ServerCall(
        path=SIGN, metadata=metadata, deadline=None, peer=Peer(), descriptors=None, send=lambda path: path
    )
    return await authority.sign(call, asked(spiffe_id))


def test_the_agent_of_a_node_speaks_for_its_pods_alone(attested: Cluster) -> None:
    """By TLS and a bound token: the pod of the same node gets its SVID; that of another node does not."""
    namespace = attested.namespace
    (attested.folder / "bound").write_text(attested.token(AGENT, bound_to="agent"))

    async def main() -> None:
        async with authority_of(attested) as (_, url):
            settings = AgentSettings(
                namespace=namespace,
                authority_url=url,
                token_file=str(attested.folder / "bound"),
                node_name=f"{namespace}-1",
            )
            bundle = await read_bundle(attested.api(AGENT), settings)
            signer = Signer(settings, bundle, SystemClock())
            near = pod_id("cluster.nsmesh", namespace, "near")
            assert (await signer.svid(near, 3600.0)).spiffe_id == near
            with pytest.raises(Unauthorized, match=rf"{namespace}/far does not run on node {namespace}-1"):
                await signer.svid(pod_id("cluster.nsmesh", namespace, "far"), 3600.0)
            with pytest.raises(Unauthorized, match="there is no pod"):
                await signer.svid(pod_id("cluster.nsmesh", namespace, "nobody"), 3600.0)

    asyncio.run(main())


def test_tokens_that_are_not_an_agents(attested: Cluster) -> None:
    """Another audience, another account, no pod behind it, no token, nonsense: each is refused by name."""
    near = pod_id("cluster.nsmesh", attested.namespace, "near")
    cases = {
        "for another audience|not good": attested.token(AGENT, "vault", "agent"),
        "other is no agent": attested.token("other", bound_to="imposter"),
        "does not say its node": attested.token(AGENT),
        "signs for agents alone": "",
        "not good": "nonsense",
    }

    async def main() -> None:
        async with authority_of(attested) as (authority, _):
            for reason, token in cases.items():
                with pytest.raises(Unauthorized, match=reason):
                    await sign(authority, token, near)

    asyncio.run(main())


def test_ids_that_are_no_pods(attested: Cluster) -> None:
    """A good agent gets no ID of another shape or trust domain, and no answer to a broken request."""
    good = attested.token(AGENT, bound_to="agent")

    async def main() -> None:
        async with authority_of(attested) as (authority, _):
            for identity in (
                pod_id("elsewhere", attested.namespace, "near"),
                "spiffe://cluster.nsmesh/nsmgr",
                f"spiffe://cluster.nsmesh/ns/{attested.namespace}/sa/near",
            ):
                with pytest.raises(Unauthorized, match="no pod's"):
                    await sign(authority, good, identity)
            call = rpc.ServerCall(SIGN, (), None, Peer(), None, lambda path: path)
            with pytest.raises(Invalid, match="no SignRequest"):
                await authority.sign(call, b"\xff")

    asyncio.run(main())


def member(name: str, node: str, uid: str, **labels: str) -> dict[str, Any]:
    """Return a pod that says it is of the DaemonSet ``web``."""
    made = pod(name, node)
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "web", "uid": uid, "controller": True}
    made["metadata"] |= {"ownerReferences": [owner], "labels": labels}
    return made


def test_pods_of_a_daemon_set_share_the_id_of_their_node(attested: Cluster) -> None:
    """A pod of it on the agent's node gets it; another pod, node, DaemonSet, or none gets nothing."""
    good = attested.token(AGENT, bound_to="agent")
    near, far = (f"{attested.namespace}-{number}" for number in (1, 2))
    container = {"name": "c", "image": "none"}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
    whole = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"}, "spec": spec}
    attested.apply(whole)
    uid = attested.kubectl("get", "daemonset", "web", "-o", "jsonpath={.metadata.uid}")
    attested.apply(
        member("web-1", near, uid, app="web"),
        member("web-2", far, uid, app="web"),
        member("liar", near, "5d1c9a0e-6f0a-4b52-9d35-8a77f2f0c1ab", app="web"),
        member("released", near, uid, app="other"),
    )
    own = member_id("cluster.nsmesh", Member(attested.namespace, "web", near))
    refused = {
        ("web-2", own): "does not run on node",
        ("near", own): "none of the DaemonSet web",
        ("liar", own): "none of the DaemonSet web",
        ("released", own): "none of the DaemonSet web",
        ("nobody", own): "there is no pod",
        ("", own): "names no pod",
        ("web-1?x=/", own): "names no pod",
        ("web-2", own.replace(near, far)): f"cannot vouch for node {far}",
        ("web-1", own.replace("/web/", "/other/")): "there is no DaemonSet",
    }

    async def main() -> None:
        async with authority_of(attested) as (authority, _):
            await sign(authority, good, own, "web-1")
            for (name, identity), reason in refused.items():
                with pytest.raises(Unauthorized, match=reason):
                    await sign(authority, good, identity, name)

    asyncio.run(main())


def test_a_successor_speaks_with_the_id_of_its_predecessor(attested: Cluster) -> None:
    """Of two pods that share an ID the agent names the later one, and the other when that is gone."""
    settings = AgentSettings(namespace=attested.namespace, node_name="n1")
    pods = Pods(attested.api(AGENT), settings, Entries())
    shared = member_id(settings.trust_domain, Member(attested.namespace, "web", "n1"))
    made = [member(f"web-{number}", "n1", "u", app="web") for number in (1, 2)]
    assert pods.pod_for(shared) == ""
    for number, one in enumerate(made, 1):
        one["metadata"] |= {"namespace": attested.namespace, "uid": f"{number}"}
        pods._put(one)
        assert pods.pod_for(shared) == f"web-{number}"
    pods._drop("2")
    assert pods.pod_for(shared) == "web-1"


def test_a_token_is_reviewed_once_a_minute(attested: Cluster) -> None:
    """The second call with the same token asks the API server for the pod alone."""
    good = attested.token(AGENT, bound_to="agent")
    near = pod_id("cluster.nsmesh", attested.namespace, "near")

    async def main() -> None:
        async with authority_of(attested) as (authority, _):
            calls = []
            told = authority._server.call

            async def counted(verb: str, path: str, body: Any = None) -> Any:
                calls.append(path.rsplit("/", 1)[1])
                return await told(verb, path, body)

            authority._server.call = counted
            for _ in range(2):
                await sign(authority, good, near)
            assert calls == ["tokenreviews", "near", "near"]

    asyncio.run(main())


def test_the_ca_outlives_its_process(attested: Cluster) -> None:
    """A CA that begins anew is the one that its secret keeps, and others read its certificates."""

    async def main() -> None:
        async with authority_of(attested) as (first, _):
            before = first._ca.bundle()
        shutil.rmtree(attested.folder / "ca")
        async with authority_of(attested) as (second, _):
            assert second._ca.bundle() == before
        settings = AgentSettings(namespace=attested.namespace)
        assert await read_bundle(attested.api(AGENT), settings) == before

    asyncio.run(main())


def test_pods_of_the_node_are_followed(own_api_server, tmp_path) -> None:
    """Those of the node alone are entries, until they are deleted; 410 Gone costs one list."""
    with prepared(own_api_server, "default", tmp_path) as cluster:
        own_api_server.start_api(own_api_server.stop_api())  # what it knows begins now: version 1 is too old
        asyncio.run(follow_pods(cluster))


async def follow_pods(cluster: Cluster) -> None:
    entries = Entries()
    node = f"{cluster.namespace}-1"
    pods = Pods(cluster.api(AGENT), AgentSettings(namespace=cluster.namespace, node_name=node), entries)
    lists = 0
    true_list = pods._list

    async def first_too_old() -> str:
        nonlocal lists
        lists += 1
        version = await true_list()
        return "1" if lists == 1 else version

    pods._list = first_too_old

    async def reach(*wanted: str) -> None:
        async with asyncio.timeout(20):
            while {one.spiffe_id.rsplit("/", 1)[1] for one in entries._entries} != set(wanted):  # noqa: ASYNC110 - a server
                await asyncio.sleep(0.05)

    async with asyncio.timeout(10):
        with pytest.raises(Conflict):
            await pods._watch("1")
    following = asyncio.create_task(pods.follow())
    await reach("agent", "imposter", "near")
    await asyncio.to_thread(cluster.apply, pod("late", node), pod("away", f"{cluster.namespace}-2"))
    await reach("agent", "imposter", "near", "late")
    await asyncio.to_thread(cluster.kubectl, "delete", "pod", "near", "--force", "--grace-period=0")
    await reach("agent", "imposter", "late")
    assert lists == 2
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
