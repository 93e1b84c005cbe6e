"""The agent of a node on a real API server: its pods, the CA that it asks, and a node without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_attestation import AGENT, CA, Cluster, authority_of, member, pod, prepared, sign
from kubernetes_rights import proven

from nsmesh.attestation.agent import Pods, Signer, published, read_bundle
from nsmesh.attestation.keeping import Keeper
from nsmesh.attestation.names import Member, member_id, pod_id
from nsmesh.attestation.settings import AgentSettings
from nsmesh.core.clock import SystemClock
from nsmesh.core.errors import Invalid, Unauthorized
from nsmesh.kubernetes.client import connected, in_pod
from nsmesh.security.entries import Entries


@pytest.fixture
def attested(api_server, api_namespace, tmp_path) -> Iterator[Cluster]:
    """Give the test's own namespace, prepared."""
    with prepared(api_server, api_namespace, tmp_path) as cluster:
        yield cluster


def test_the_agent_of_a_node_speaks_for_its_pods_alone(attested: Cluster) -> None:
    """By TLS and a bound token: the pod of the same node gets its SVID; that of another node does not."""
    namespace = attested.namespace
    (attested.folder / "bound").write_text(attested.token(AGENT, bound_to="agent"))

    async def main() -> None:
        async with authority_of(attested) as (authority, url):
            settings = AgentSettings(
                namespace=namespace,
                authority_url=url,
                token_file=str(attested.folder / "bound"),
                node_name=f"{namespace}-1",
            )
            async with attested.api(AGENT) as api:
                bundle = await read_bundle(api, settings)
                signer = Signer(settings, bundle, lambda: published(api, settings), SystemClock())
                near = pod_id("cluster.nsmesh", namespace, "near")
                assert (await signer.svid(near, 3600.0)).spiffe_id == near
                with pytest.raises(Unauthorized, match=f"{namespace}/far does not run on node {namespace}-1"):
                    await signer.svid(pod_id("cluster.nsmesh", namespace, "far"), 3600.0)
                with pytest.raises(Unauthorized, match="there is no pod"):
                    await signer.svid(pod_id("cluster.nsmesh", namespace, "nobody"), 3600.0)
                # one that signs at once, as after a step of the clock, is known by what was published
                async with attested.api(CA) as own:
                    authority._ca.prepare()
                    authority._ca.activate()
                    await Keeper(own, attested.settings()).keep(authority._ca)
                assert (await signer.svid(near, 3600.0)).spiffe_id == near
                assert signer.bundle() == authority._ca.bundle() != bundle

    asyncio.run(main())


def test_a_successor_speaks_with_the_id_of_its_predecessor(attested: Cluster) -> None:
    """Of two pods that share an ID the agent names the later one, and the other when that is gone."""
    settings = AgentSettings(namespace=attested.namespace, node_name="n1")
    shared = member_id(settings.trust_domain, Member(attested.namespace, "web", "n1"))
    made = [member(f"web-{number}", "n1", "u", app="web") for number in (1, 2)]

    async def main() -> None:
        async with attested.api(AGENT) as api:
            pods = Pods(api, settings, Entries())
        assert pods.pod_for(shared) == ""
        for number, one in enumerate(made, 1):
            one["metadata"] |= {"namespace": attested.namespace, "uid": f"{number}"}
            pods.changed(one)
            assert pods.pod_for(shared) == f"web-{number}"
        pods.deleted(made[1])
        assert pods.pod_for(shared) == "web-1"

    asyncio.run(main())


def test_each_right_of_the_manifests_is_used(attested: Cluster) -> None:
    """From a CA that is made to a pod and a member that get their IDs: no right is lacking, and none idle."""
    good = attested.token(AGENT, bound_to="agent")
    settings = AgentSettings(namespace=attested.namespace, node_name=f"{attested.namespace}-1")
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
    attested.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"}, "spec": spec})
    uid = attested.kubectl("get", "daemonset", "web", "-o", "jsonpath={.metadata.uid}")
    attested.apply(member("web-1", settings.node_name, uid, app="web"))

    async def main() -> None:
        async with authority_of(attested) as (authority, _), attested.api(AGENT) as api:
            await sign(authority, good, pod_id("cluster.nsmesh", attested.namespace, "near"))
            of_node = Member(attested.namespace, "web", settings.node_name)
            await sign(authority, good, member_id("cluster.nsmesh", of_node), "web-1")
            await read_bundle(api, settings)
            pods = Pods(api, settings, Entries())
            following = asyncio.create_task(pods.reflector.run())
            await pods.reflector.synced.wait()
            async with authority_of(attested):  # a second one reads what the first has kept
                pass
            await asyncio.to_thread(check, AGENT)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def check(account: str) -> None:
        rules = [
            rule
            for item in attested.rights
            if item["metadata"]["name"].startswith(account)
            for rule in item.get("rules", ())
        ]
        proven(attested.server, account, attested.namespace, rules)

    asyncio.run(main())
    check(CA)


def test_outside_of_a_cluster(tmp_path: Path) -> None:
    """It says what is missing, and what to do; so does a service account whose files are no good."""
    with pytest.raises(Invalid, match=rf"service account in {tmp_path}.*automountServiceAccountToken"):
        in_pod(tmp_path)
    for name in ("token", "namespace", "ca.crt"):
        (tmp_path / name).write_text("nonsense")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBERNETES_SERVICE_HOST", "::1")
        patch.setenv("KUBERNETES_SERVICE_PORT", "1")
        found = in_pod(tmp_path)

    async def main() -> None:
        async with connected(found):
            pass

    with pytest.raises(Invalid, match=r"credentials for https://\[::1\]:1 cannot be used"):
        asyncio.run(main())


def test_pods_of_the_node_are_followed(own_api_server, tmp_path) -> None:
    """Those of the node alone are entries, until they are deleted; 410 Gone costs one list."""
    with prepared(own_api_server, "default", tmp_path) as cluster:
        own_api_server.start_api(own_api_server.stop_api())  # what it knows begins now: version 1 is too old
        asyncio.run(follow_pods(cluster))


async def follow_pods(cluster: Cluster) -> None:
    entries = Entries()
    node = f"{cluster.namespace}-1"
    settings = AgentSettings(namespace=cluster.namespace, node_name=node)

    async def reach(*wanted: str) -> None:
        async with asyncio.timeout(20):
            while {one.spiffe_id.rsplit("/", 1)[1] for one in entries._entries} != set(wanted):  # noqa: ASYNC110 - a server
                await asyncio.sleep(0.05)

    async with cluster.api(AGENT) as api:
        pods = Pods(api, settings, entries)
        pods.reflector._version = "1"
        following = asyncio.create_task(pods.reflector.run())
        await reach("agent", "imposter", "near")
        await asyncio.to_thread(cluster.apply, pod("late", node), pod("away", f"{cluster.namespace}-2"))
        await reach("agent", "imposter", "near", "late")
        await asyncio.to_thread(cluster.kubectl, "delete", "pod", "near", "--force", "--grace-period=0")
        await reach("agent", "imposter", "late")
        assert pods.reflector.lists == 1
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
