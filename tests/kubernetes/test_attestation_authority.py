"""The CA on a real API server, with no more rights than the manifests give: whom it signs for."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes_attestation import AGENT, CA, Cluster, authority_of, member, prepared, sign

from nsmesh import rpc
from nsmesh.attestation.agent import read_bundle
from nsmesh.attestation.keeping import Keeper, Rotation
from nsmesh.attestation.names import SIGN, Member, member_id, pod_id
from nsmesh.attestation.settings import AgentSettings
from nsmesh.core.call import Peer
from nsmesh.core.errors import Invalid, Unauthorized, Unavailable


@pytest.fixture
def attested(api_server, api_namespace, tmp_path) -> Iterator[Cluster]:
    """Give the test's own namespace, prepared."""
    with prepared(api_server, api_namespace, tmp_path) as cluster:
        yield cluster


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


def test_a_selector_of_expressions(attested: Cluster) -> None:
    """A DaemonSet that selects by expressions alone has no more members than its controller takes."""
    good = attested.token(AGENT, bound_to="agent")
    node = f"{attested.namespace}-1"
    expressions = [
        {"key": "app", "operator": "In", "values": ["web", "site"]},
        {"key": "tier", "operator": "NotIn", "values": ["back"]},
        {"key": "real", "operator": "Exists"},
        {"key": "left", "operator": "DoesNotExist"},
    ]
    labels = {"app": "web", "real": ""}
    container = {"name": "c", "image": "none"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchExpressions": expressions}, "template": template}
    attested.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"}, "spec": spec})
    uid = attested.kubectl("get", "daemonset", "web", "-o", "jsonpath={.metadata.uid}")
    others = {"app": {"app": "other"}, "tier": {"tier": "back"}, "real": {}, "left": {"left": "x"}}
    attested.apply(
        member("is-one", node, uid, **labels),
        *(
            member(f"not-{key}", node, uid, **{k: v for k, v in labels.items() if k != key}, **change)
            for key, change in others.items()
        ),
    )
    own = member_id("cluster.nsmesh", Member(attested.namespace, "web", node))

    async def main() -> None:
        async with authority_of(attested) as (authority, _):
            await sign(authority, good, own, "is-one")
            for key in others:
                with pytest.raises(Unauthorized, match="none of the DaemonSet web"):
                    await sign(authority, good, own, f"not-{key}")

    asyncio.run(main())


def test_a_token_is_reviewed_once_a_minute(attested: Cluster) -> None:
    """The second call with the same token asks the API server for the pod alone."""
    good = attested.token(AGENT, bound_to="agent")
    near = pod_id("cluster.nsmesh", attested.namespace, "near")

    async def main() -> None:
        async with authority_of(attested) as (authority, _):
            calls = []
            told = authority._server.call

            async def counted(verb: str, path: str, **more: Any) -> Any:
                calls.append(path.rsplit("/", 1)[1])
                return await told(verb, path, **more)

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
        async with attested.api(AGENT) as api:
            assert await read_bundle(api, settings) == before

    asyncio.run(main())


def test_a_step_of_rotation_is_kept_when_the_api_server_is_back(attested: Cluster) -> None:
    """While it fails the step is tried again, and no other one is taken; then agents read what is true."""

    async def main() -> None:
        async with authority_of(attested) as (authority, _), attested.api(CA) as api:
            ca, keeper = authority._ca, Keeper(api, attested.settings())
            steps, tries, keep = 0, 0, keeper.keep

            def due() -> bool:
                nonlocal steps
                steps += 1
                if steps == 1:
                    ca.prepare()
                return steps == 1

            async def failing(given: Any) -> None:
                nonlocal tries
                tries += 1
                assert steps == 1
                if tries < 3:
                    raise Unavailable("away")
                await keep(given)

            ca.maintain, keeper.keep = due, failing
            rotating = asyncio.create_task(Rotation(ca, keeper).run(0.05))
            async with asyncio.timeout(20):
                while steps < 3:  # noqa: ASYNC110 - a server answers in between
                    await asyncio.sleep(0.05)
            rotating.cancel()
            assert tries == 3
            async with attested.api(AGENT) as agent:
                found = await read_bundle(agent, AgentSettings(namespace=attested.namespace))
            assert found == ca.bundle()
            assert len(found.authorities) == 2

    asyncio.run(main())
