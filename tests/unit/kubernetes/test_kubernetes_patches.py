"""What the admission webhook answers."""

from __future__ import annotations

import base64
import json

import pytest

from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.injection import Injection, container_name
from nsmesh.kubernetes.patches import WORKLOADS, answer, patch

KEY = "networkservicemesh.io"
URL = "kernel://icmp-responder/nsm-1"
SETTINGS = Injection(
    init_images=["registry.example:5000/mesh/cmd-nsc-init:v1"],
    images=["mesh/cmd-nsc@sha256:00"],
    envs=["NSM_LOG_LEVEL=INFO", "NSM_TEXT=a=b"],
    labels={"spiffe.io/spiffe-id": "true"},
)


def place(annotations=None, labels=None):
    return {"metadata": {"name": "place", "annotations": annotations, "labels": labels}}


def pod(annotations=None, **meta):
    spec = {"containers": [{"name": "app", "image": "app"}]}
    return {"metadata": {"name": "one", "annotations": annotations, **meta}, "spec": spec}


def made(kind, annotations=None, template=None, **meta):
    if kind == "Pod":
        return pod(annotations, **meta)
    inner = {"metadata": {"labels": {"app": "x"}, "annotations": template}, "spec": pod()["spec"]}
    return {"metadata": {"name": "one", "annotations": annotations, **meta}, "spec": {"template": inner}}


def request(kind, body, operation="CREATE", group=None):
    group = ("" if kind == "Pod" else "apps") if group is None else group
    return {"uid": "u", "kind": {"group": group, "kind": kind}, "operation": operation, "object": body}


def values(changes):
    return {change["path"]: change["value"] for change in changes}


@pytest.mark.parametrize("kind", ["Pod", *WORKLOADS])
def test_each_kind_gets_containers_volumes_and_labels(kind):
    """Four additions, below the pod or the template; what was there stays."""
    root = "" if kind == "Pod" else "/spec/template"
    changes = patch(request(kind, made(kind, {KEY: URL})), SETTINGS, place())
    assert {change["op"] for change in changes} == {"add"}
    found = values(changes)
    assert list(found) == [
        f"{root}/spec/initContainers",
        f"{root}/spec/containers",
        f"{root}/spec/volumes",
        f"{root}/metadata/labels",
    ]
    assert [one["name"] for one in found[f"{root}/spec/initContainers"]] == ["cmd-nsc-init"]
    assert [one["name"] for one in found[f"{root}/spec/containers"]] == ["app", "cmd-nsc"]
    kept = {} if kind == "Pod" else {"app": "x"}
    assert found[f"{root}/metadata/labels"] == kept | {"spiffe.io/spiffe-id": "true"}


def test_the_environment_carries_the_annotation():
    """The value is copied as it is; a setting's value may hold '='; a fixed name gets a unique ending."""
    found = values(patch(request("Pod", pod({KEY: URL})), SETTINGS, place()))
    sidecar = found["/spec/containers"][-1]
    env = {one["name"]: one.get("value") for one in sidecar["env"]}
    assert env["NSM_NETWORK_SERVICES"] == URL
    assert env["NSM_TEXT"] == "a=b"
    assert env["NSM_NAME"].startswith("$(POD_NAME)-")
    assert all(mount["readOnly"] for mount in sidecar["volumeMounts"])


@pytest.mark.parametrize(
    ("kind", "meta", "unique"),
    [
        ("Pod", {"name": "", "generateName": "one-"}, True),
        ("Pod", {"name": "web-0", "generateName": "web-"}, False),
        ("Pod", {}, False),
        ("StatefulSet", {}, False),
        ("Deployment", {}, True),
        ("DaemonSet", {}, True),
        ("ReplicaSet", {}, True),
    ],
)
def test_a_client_has_a_name_of_its_own(kind, meta, unique):
    """A pod that is named, or numbered by a StatefulSet, has a twin in another namespace."""
    found = values(patch(request(kind, made(kind, {KEY: URL}, **meta)), SETTINGS, place()))
    containers = [value for path, value in found.items() if path.endswith("ontainers")]
    names = {one["env"][-1]["value"] for both in containers for one in both if "env" in one}
    assert len(names) == 1, "both containers have it"
    assert (names == {"$(POD_NAME)"}) == unique


def test_a_namespace_gives_wires_to_pods_without_an_annotation():
    """A pod's own annotation wins; workload objects do not inherit."""
    space = place({KEY: "kernel://of-the-namespace"})

    def services(body):
        env = values(patch(request("Pod", body), SETTINGS, space))["/spec/containers"][-1]["env"]
        return next(one["value"] for one in env if one["name"] == "NSM_NETWORK_SERVICES")

    assert services(pod()) == "kernel://of-the-namespace"
    assert services(pod({KEY: URL})) == URL
    assert patch(request("Deployment", made("Deployment")), SETTINGS, space) == []


@pytest.mark.parametrize(
    ("level", "driver", "hardened"),
    [("", False, False), ("privileged", False, False), ("baseline", True, False), ("restricted", True, True)],
)
def test_pod_security_levels(level, driver, hardened):
    """Levels that bar directories of the node get CSI volumes; restricted gets a security context."""
    labels = {"pod-security.kubernetes.io/enforce": level} if level else None
    found = values(patch(request("Pod", pod({KEY: URL})), SETTINGS, place(labels=labels)))
    assert all(("csi" in volume) == driver for volume in found["/spec/volumes"])
    context = found["/spec/containers"][-1].get("securityContext", {})
    assert context.get("runAsNonRoot", False) == hardened
    assert context.get("runAsUser") == (65532 if hardened else None)


def test_who_runs_the_client_where_root_is_barred():
    """The pod's own user where it names one, else ours; of an image with a user of its own that one."""
    space = place(labels={"pod-security.kubernetes.io/enforce": "restricted"})
    body = pod({KEY: URL})
    body["spec"]["securityContext"] = {"runAsUser": 1000}
    for settings, one in ((SETTINGS, body), (Injection(images=["a/nsc"], user=0), pod({KEY: URL}))):
        found = values(patch(request("Pod", one), settings, space))
        assert "runAsUser" not in found["/spec/containers"][-1]["securityContext"]


def test_a_pod_that_would_never_start_is_refused():
    """Without the CSI drivers that a level needs it is said which, and what helps; agents need none."""
    space = place(labels={"pod-security.kubernetes.io/enforce": "baseline"})
    for kind in ("Pod", "Deployment"):
        asked = request(kind, made(kind, {KEY: URL}))
        with pytest.raises(Invalid, match=r"'one' would never.* baseline.* no csi\.spiffe\.io .*mode: agent"):
            patch(asked, SETTINGS, space, ("csi.networkservicemesh.io",))
        assert patch(asked, SETTINGS, space)
        assert patch(asked, Injection(images=["a/nsc"], silent=True), space, ())
    by_agent = request("Pod", pod({KEY: URL, f"{KEY}/mode": "agent"}))
    assert patch(by_agent, SETTINGS, space, ()) == []
    assert patch(request("Pod", pod({KEY: URL})), SETTINGS, place(), ())


@pytest.mark.parametrize(
    ("kind", "body", "operation"),
    [
        ("Pod", pod(), "CREATE"),
        ("Pod", pod({KEY: URL}), "UPDATE"),
        ("Job", made("Job", {KEY: URL}), "CREATE"),
        ("Deployment", made("Deployment", {KEY: URL}, template={"a": "b"}), "CREATE"),
        ("ReplicaSet", made("ReplicaSet", {KEY: URL}, ownerReferences=[{"kind": "Deployment"}]), "CREATE"),
    ],
)
def test_what_is_left_alone(kind, body, operation):
    """No annotation, no creation, another kind, a template with annotations, a Deployment's ReplicaSet."""
    assert patch(request(kind, body, operation), SETTINGS, place()) == []


def test_a_patched_pod_is_not_patched_again():
    """Pods made from a patched template have the containers already."""
    body = pod({KEY: URL})
    body["spec"]["containers"].append({"name": "cmd-nsc", "env": [{"name": "NSM_NETWORK_SERVICES"}]})
    assert patch(request("Pod", body), SETTINGS, place()) == []


def test_a_native_sidecar_is_an_init_container_that_stays():
    """It stands behind the one that waits for the wires, and in front of the pod's own."""
    body = pod({KEY: URL})
    body["spec"]["initContainers"] = [{"name": "own"}]
    native = Injection(init_images=["a/nsc-init"], images=["a/nsc"], native_sidecar=True)
    found = values(patch(request("Pod", body), native, place()))
    names = [(one["name"], one.get("restartPolicy")) for one in found["/spec/initContainers"]]
    assert names == [("nsc-init", None), ("nsc", "Always"), ("own", None)]
    assert [one["name"] for one in found["/spec/containers"]] == ["app"]


def test_a_native_sidecar_may_hold_the_pod_back_itself():
    """By a command that has to succeed before the kubelet starts the next container; no other one has it."""
    command = ["/usr/bin/nsm-up", "@nsm-up"]
    alone = Injection(images=["a/nsc"], native_sidecar=True, started=command)
    body = pod({KEY: URL})
    body["spec"]["initContainers"] = [{"name": "own"}]
    ours, own = values(patch(request("Pod", body), alone, place()))["/spec/initContainers"]
    assert ours["startupProbe"]["exec"] == {"command": command}
    assert ours["startupProbe"]["failureThreshold"] == 2**31 - 1, "the client is never killed for it"
    assert ours["restartPolicy"] == "Always"
    assert own == {"name": "own"}


def test_a_native_sidecar_may_hold_the_pod_back_by_its_start():
    """By a command whose end the kubelet waits for before it goes on, and no probe."""
    command = ["/usr/bin/nsm-up", "@nsm-up"]
    alone = Injection(images=["a/nsc"], native_sidecar=True, at_start=command)
    (ours,) = values(patch(request("Pod", pod({KEY: URL})), alone, place()))["/spec/initContainers"]
    assert ours["lifecycle"] == {"postStart": {"exec": {"command": command}}}
    assert "startupProbe" not in ours
    assert ours["restartPolicy"] == "Always"


@pytest.mark.parametrize("value", ["icmp-responder", "kernel://", "kernel://a,,kernel://b", " "])
def test_a_bad_annotation_is_refused_with_its_mistake(value):
    """The answer says which annotation of which object; the silent mode lets it pass as it is."""
    review = {"apiVersion": "admission.k8s.io/v1", "request": request("Pod", pod({KEY: value}))}
    response = answer(review, SETTINGS, place())["response"]
    assert not response["allowed"]
    assert KEY in response["status"]["message"]
    assert "'one'" in response["status"]["message"]
    silent = answer(review, Injection(images=["a/nsc"], silent=True), place())["response"]
    assert silent["allowed"]
    assert value in base64.b64decode(silent["patch"]).decode()


def test_an_answer_carries_the_patch_in_base64():
    """The uid comes back, the patch decodes to a list; what is no review is an error."""
    review = {"apiVersion": "admission.k8s.io/v1", "request": request("Pod", pod({KEY: URL}))}
    response = answer(review, SETTINGS, place())["response"]
    assert response["uid"] == "u"
    assert response["patchType"] == "JSONPatch"
    assert len(json.loads(base64.b64decode(response["patch"]))) == 4
    with pytest.raises(Invalid):
        answer({}, SETTINGS, place())


@pytest.mark.parametrize(("image", "name"), [("a/b:1", "b"), ("h:5000/b", "b"), ("b@sha256:0", "b")])
def test_a_container_is_called_as_its_image(image, name):
    """Registry, tag and digest are no part of the name."""
    assert container_name(image) == name


@pytest.mark.parametrize(("kind", "group"), [("Pod", "example.org"), ("Deployment", ""), ("Deployment", "x")])
def test_another_group_is_left_alone(kind, group):
    """Kinds are of a group: somebody's own Deployment has no template that we know."""
    assert patch(request(kind, made(kind, {KEY: URL}), group=group), SETTINGS, place()) == []


def test_a_subresource_is_left_alone():
    """A binding or an eviction of a pod is no pod."""
    asked = {**request("Pod", pod({KEY: URL})), "subResource": "binding"}
    assert patch(asked, SETTINGS, place()) == []


@pytest.mark.parametrize("key", ["initContainers", "containers"])
def test_a_container_of_ours_by_name_alone_is_refused(key):
    """A pod's own container of such a name is no client: it would have no wires, and nobody would say so."""
    body = pod({KEY: URL})
    body["spec"].setdefault(key, []).append({"name": "cmd-nsc", "image": "other"})
    with pytest.raises(Invalid, match=r"Pod 'one' has a container 'cmd-nsc' of its own.*rename"):
        patch(request("Pod", body), SETTINGS, place())


def test_a_volume_of_ours_by_name_alone_is_refused():
    """The same directory is shared; another one under the name would be mounted as the sockets."""
    body = pod({KEY: URL})
    body["spec"]["volumes"] = [
        {"name": "nsm-socket", "hostPath": {"path": "/var/lib/networkservicemesh"}},
        {"name": "data", "emptyDir": {}},
    ]
    found = values(patch(request("Pod", body), SETTINGS, place()))["/spec/volumes"]
    assert [one["name"] for one in found] == ["nsm-socket", "data", "spire-agent-socket"]
    for other in ({"emptyDir": {}}, {"hostPath": {"path": "/tmp"}}, {"csi": {"driver": "x"}}):
        body["spec"]["volumes"][0] = {"name": "nsm-socket", **other}
        with pytest.raises(Invalid, match="volume 'nsm-socket' of its own"):
            patch(request("Pod", body), SETTINGS, place())


def test_directories_are_made_where_they_are_missing():
    """A pod on a node that starts waits for the socket, not for a mount that is tried every two minutes."""
    found = values(patch(request("Pod", pod({KEY: URL})), SETTINGS, place()))["/spec/volumes"]
    assert {one["hostPath"]["type"] for one in found} == {"DirectoryOrCreate"}


def test_folders_of_the_node():
    """They may lie elsewhere; in the pod they are where NSM has them."""
    moved = Injection(images=["a/nsc"], spire_folder="/run/a", nsm_folder="/run/b")
    found = values(patch(request("Pod", pod({KEY: URL})), moved, place()))
    assert [one["hostPath"]["path"] for one in found["/spec/volumes"]] == ["/run/a", "/run/b"]
    mounts = [one["mountPath"] for one in found["/spec/containers"][-1]["volumeMounts"]]
    assert mounts == ["/run/spire/sockets", "/var/lib/networkservicemesh"]


def test_one_image_for_both_containers():
    """What an image is started with names its container, or both would have one name."""
    both = Injection(
        init_images=["r/nsm:1"], images=["r/nsm:1"], init_args=["run", "nsc-init"], args=["run", "nsc"]
    )
    found = values(patch(request("Pod", pod({KEY: URL})), both, place()))
    first, last = found["/spec/initContainers"][0], found["/spec/containers"][-1]
    assert (first["name"], first["args"]) == ("nsc-init", ["run", "nsc-init"])
    assert (last["name"], last["args"]) == ("nsc", ["run", "nsc"])


MODE = "networkservicemesh.io/mode"


@pytest.mark.parametrize("where", ["object", "namespace"])
def test_wires_that_the_agent_makes(where):
    """Its pods stay as they are; a template passes on what its workload asks for."""
    own = {MODE: "agent"} if where == "object" else {}
    space = place({MODE: "agent", KEY: URL} if where == "namespace" else None)
    assert patch(request("Pod", pod({KEY: URL, **own})), SETTINGS, space) == []
    if where == "namespace":
        assert patch(request("Pod", pod()), SETTINGS, space) == []
        assert patch(request("Pod", pod({MODE: "sidecar"})), SETTINGS, space) != []
    changes = patch(request("Deployment", made("Deployment", {KEY: URL, **own})), SETTINGS, space)
    assert values(changes) == {"/spec/template/metadata/annotations": {KEY: URL, MODE: "agent"}}
    with pytest.raises(Invalid, match="memif"):
        patch(request("Pod", pod({KEY: "memif://a", **own})), SETTINGS, space)


def test_a_mode_that_is_none_is_refused():
    """It says which there are."""
    with pytest.raises(Invalid, match="say agent or sidecar"):
        patch(request("Pod", pod({KEY: URL, MODE: "Agent"})), SETTINGS, place())


@pytest.mark.parametrize(
    ("field", "told"),
    [({"hostNetwork": True}, "in the node's network"), ({"os": {"name": "windows"}}, "runs on windows")],
)
def test_a_pod_that_cannot_have_wires(field, told):
    """Its own annotation is a mistake; that of its namespace is not about it; NSM's way adds a client."""
    body = pod({KEY: URL})
    body["spec"] |= field
    with pytest.raises(Invalid, match=f"Pod 'one' cannot have wires: it .*{told}"):
        patch(request("Pod", body), SETTINGS, place())
    silent = Injection(images=["a/nsc"], silent=True)
    assert patch(request("Pod", body), silent, place()) != []
    inherits = pod()
    inherits["spec"] |= field
    assert patch(request("Pod", inherits), SETTINGS, place({KEY: URL})) == []
    template = made("DaemonSet", {KEY: URL})
    template["spec"]["template"]["spec"] = body["spec"]
    with pytest.raises(Invalid, match=told):
        patch(request("DaemonSet", template), SETTINGS, place())


def test_a_mirror_pod_is_left_alone():
    """It says what a file of its node says; the kubelet would make a patched one again and again."""
    body = pod({KEY: URL, "kubernetes.io/config.mirror": "0123"})
    assert patch(request("Pod", body), SETTINGS, place({KEY: URL})) == []
