"""What the webhook answers over HTTP, and what it asks API servers to be called for."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsmesh.core.errors import Unavailable
from nsmesh.kubernetes.https_session import Request
from nsmesh.kubernetes.injection import Injection
from nsmesh.kubernetes.reviewing import REVIEWS, Reviewer
from nsmesh.kubernetes.webhooks import Registration, bundle_of, webhooks

KEY = "networkservicemesh.io"
POD = {
    "metadata": {"name": "one", "annotations": {KEY: "kernel://a"}},
    "spec": {"containers": [{"name": "app"}]},
}


def review(**changes):
    request = {
        "uid": "u",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": "place",
        "object": POD,
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def asked(request, *, error=None, lacking="", level=""):
    """Return status and body of an answer, and which namespaces were read."""
    read = []

    async def namespace(name):
        read.append(name)
        if error:
            raise error
        return {"metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": level}}}

    async def drivers():
        return ("csi.spiffe.io",)

    reviewer = Reviewer(Injection(images=["mesh/nsc"]), namespace, lambda: lacking, drivers)
    found = asyncio.run(reviewer(request))
    return found.status, found.body, read


def mutate(body, **options):
    return asked(Request("POST", "/mutate", json.dumps(body).encode()), **options)


def test_an_object_is_reviewed():
    """Its namespace is read; an object that is none of ours costs no call."""
    status, body, read = mutate(review())
    assert status == 200
    assert json.loads(body)["response"]["patchType"] == "JSONPatch"
    assert read == ["place"]
    status, body, read = mutate(review(operation="UPDATE"))
    assert json.loads(body)["response"] == {"uid": "u", "allowed": True}
    assert read == []


def test_drivers_count_where_directories_are_barred():
    """There the answer says which one is missing; elsewhere nobody asks for them."""
    for level, allowed in (("", True), ("privileged", True), ("baseline", False), ("restricted", False)):
        _, body, _ = mutate(review(), level=level)
        response = json.loads(body)["response"]
        assert response["allowed"] == allowed
        if not allowed:
            assert "no csi.networkservicemesh.io" in response["status"]["message"]
            assert "csi.spiffe.io" not in response["status"]["message"]


def test_a_namespace_that_cannot_be_read_is_no_answer():
    """The failure policy decides then, not we."""
    before = REVIEWS.values.get(("failed",), 0)
    status, body, _ = mutate(review(), error=Unavailable("the API server is away"))
    assert (status, body) == (503, b"the API server is away\n")
    assert REVIEWS.values["failed",] == before + 1


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (Request("GET", "/mutate", b""), 405),
        (Request("GET", "/other", b""), 404),
        (Request("GET", "/live", b""), 200),
        (Request("GET", "/ready", b""), 200),
        (Request("POST", "/mutate", b"x"), 400),
        (Request("POST", "/mutate", b"[]"), 400),
        (Request("POST", "/mutate", b"{}"), 400),
        (Request("POST", "/mutate", b"[" * 100_000), 400),
    ],
)
def test_anything_else(request_, status):
    """What is no review is told so."""
    assert asked(request_)[0] == status


def test_who_cannot_be_called_is_not_ready():
    """It says what is lacking, and lives all the same."""
    status, body, _ = asked(Request("GET", "/ready", b""), lacking="not registered yet")
    assert (status, body) == (503, b"not registered yet\n")
    assert asked(Request("GET", "/live", b""), lacking="not registered yet")[0] == 200


KEYS = ["metadata", "spec", "template", "annotations", "labels", "containers", "volumes", "env", "name", KEY]
JSON = st.recursive(
    st.none() | st.booleans() | st.just("kernel://a") | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(JSON, st.sampled_from(["Pod", "Deployment"]))
def test_no_object_is_unforeseen(body, kind):
    """Whatever JSON comes as an object: it is reviewed or told to be none."""
    group = "" if kind == "Pod" else "apps"
    annotated = {"metadata": {"annotations": {KEY: "kernel://a"}}, "spec": body}
    for made in (body, annotated, {**annotated, "spec": {"template": body}}):
        assert mutate(review(object=made, kind={"group": group, "kind": kind}))[0] in {200, 400}
    assert mutate(body)[0] == 400
    assert mutate(review(kind=body))[0] in {200, 400}


def registration(**changes):
    return Registration(service="webhook", namespace="mesh", exempt=("kube-system",), **changes)


def test_each_pod_comes_to_one_webhook():
    """Names of namespaces are in one selector alone; who is exempt is in none."""
    objects, namespaces, others = webhooks(registration(), "PEM", {"b", "a", "mesh"})
    names = [one["namespaceSelector"]["matchExpressions"][0] for one in (objects, namespaces, others)]
    assert [(one["operator"], one["values"]) for one in names] == [
        ("NotIn", ["kube-system", "mesh"]),
        ("In", ["a", "b"]),
        ("NotIn", ["a", "b", "kube-system", "mesh"]),
    ]
    assert [one["failurePolicy"] for one in (objects, namespaces, others)] == ["Fail", "Fail", "Ignore"]
    expressions = [one["matchConditions"][0]["expression"] for one in (objects, namespaces, others)]
    assert expressions[1] == expressions[2] == f"!({expressions[0]})"
    assert [one["name"].split(".")[0] for one in webhooks(registration(), "PEM", ())] == ["objects", "others"]


def test_the_bundle_is_the_same_for_all():
    """It is read back; where webhooks differ, or there are none, nobody is trusted."""
    made = {"webhooks": webhooks(registration(), "PEM", {"a"})}
    assert bundle_of(made) == "PEM"
    made["webhooks"][0]["clientConfig"]["caBundle"] = ""
    assert bundle_of(made) == ""
    assert bundle_of({}) == ""
