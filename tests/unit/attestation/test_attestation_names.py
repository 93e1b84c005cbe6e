"""Which pod a process is of, by its cgroup, and the SPIFFE ID of a pod."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.attestation.agent import attest_pod
from nsmesh.attestation.names import (
    Member,
    id_of,
    member_id,
    member_of,
    pod_id,
    pod_of,
)
from nsmesh.core.call import Peer
from nsmesh.kubernetes.pod_processes import uid_of_cgroups, uid_of_process
from nsmesh.security.spiffe import SpiffeId

UID = "5d1c9a0e-6f0a-4b52-9d35-8a77f2f0c1ab"
OTHER = "5d1c9a0e-6f0a-4b52-9d35-8a77f2f0c1ac"
BROKEN = UID.replace("-", "_")
CONTAINER = "e3" * 32


@pytest.mark.parametrize(
    "text",
    [
        f"12:memory:/kubepods/burstable/pod{UID}/{CONTAINER}\n1:cpu:/kubepods/burstable/pod{UID}/{CONTAINER}\n",
        f"11:pids:/kubepods/pod{UID}/{CONTAINER}\n10:freezer:/system.slice\n0::/\n",
        f"0::/kubepods/besteffort/pod{UID}/{CONTAINER}\n",
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{BROKEN}.slice/a.scope\n",
        f"0::/kubepods.slice/kubepods-pod{BROKEN}.slice/crio-{CONTAINER}.scope/container\n",
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{BROKEN}.slice/a.scope\n",
        f"0::/../../../besteffort/pod{UID}/{CONTAINER}\n",
    ],
    ids=["v1", "v1-guaranteed", "v2", "v2-systemd", "v2-systemd-crio", "nested-kubelet", "relative"],
)
def test_every_form_of_a_cgroup_names_its_pod(text: str) -> None:
    """Both versions, both drivers, and a kubelet below a slice of its own give the uid with dashes."""
    assert uid_of_cgroups(text) == UID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0::/\n",
        "0::/user.slice/user-0.slice/session-1.scope\n",
        "0::/kubepods/besteffort\n",
        f"0::/kubepods/pod{'ab' * 16}/{CONTAINER}\n",
        f"0::/kubepods/pod{UID}0/{CONTAINER}\n",
        f"0::/kubepods/pod{UID}/{CONTAINER}/pod{OTHER}\n",
        f"2:cpu:/kubepods/pod{UID}/{CONTAINER}\n1:pids:/kubepods/pod{OTHER}/{CONTAINER}\n",
    ],
    ids=["empty", "host", "session", "class", "static-pod", "longer", "nested-in-another", "two-lines"],
)
def test_what_names_no_pod_or_two_counts_as_none(text: str) -> None:
    """A cgroup that a container made below its own cannot make it another pod."""
    assert uid_of_cgroups(text) == ""


@given(st.uuids(), st.uuids())
def test_two_pods_are_never_one(one: object, two: object) -> None:
    """For any two uids: both named is none, one named twice is itself."""
    text = f"1:cpu:/kubepods/pod{one}/x\n0::/kubepods/pod{two}/x\n"
    assert uid_of_cgroups(text) == (str(one) if one == two else "")


def test_a_process_of_no_pod_or_gone(tmp_path) -> None:
    """This process is of no pod; neither is one that has ended, nor a caller without a pid."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(f"0::/kubepods/pod{UID}/{CONTAINER}\n")
    assert uid_of_process(7, tmp_path) == UID
    assert uid_of_process(8, tmp_path) == ""
    if "pod" not in Path("/proc/self/cgroup").read_text():
        assert attest_pod(Peer(pid=os.getpid())) == frozenset()
    assert attest_pod(Peer(pid=0)) == frozenset()
    assert attest_pod(Peer()) == frozenset()


def test_a_pods_id_is_read_back() -> None:
    """What is made of a pod is read as that pod; other paths are no pod's."""
    made = SpiffeId.parse(pod_id("cluster.nsmesh", "shop", "web-0.a"))
    assert pod_of(made) == ("shop", "web-0.a")
    for path in ("/ns/shop/sa/web", "/ns/shop/pod/web/x", "/x/ns/shop/pod/web", "/ns/Shop/pod/web", ""):
        assert pod_of(SpiffeId("cluster.nsmesh", path)) is None


def test_the_id_of_a_daemon_set_on_a_node_is_read_back() -> None:
    """What is made of it is read as it, and as no pod; other paths are none."""
    member = Member("nsm-system", "forwarder", "node-1.example.org")
    made = SpiffeId.parse(member_id("cluster.nsmesh", member))
    assert member_of(made) == member
    assert pod_of(made) is None
    for path in ("/ns/shop/pod/web", "/ns/shop/ds/web", "/ns/shop/ds/web/node/", "/ns/shop/ds/web/node/a/b"):
        assert member_of(SpiffeId("cluster.nsmesh", path)) is None


@pytest.mark.parametrize(
    ("owners", "path"),
    [
        ([("apps/v1", "DaemonSet", True)], "ds/web/node/n1"),
        ([("v1", "ConfigMap", False), ("apps/v1", "DaemonSet", True)], "ds/web/node/n1"),
        ([("apps/v1", "DaemonSet", False)], "pod/web-x7"),
        ([("example.org/v1", "DaemonSet", True)], "pod/web-x7"),
        ([("apps/v1", "ReplicaSet", True)], "pod/web-x7"),
        ([("apps/v1", "StatefulSet", True)], "pod/web-x7"),
        ([], "pod/web-x7"),
    ],
    ids=["daemon-set", "among-others", "no-controller", "other-group", "deployment", "stateful-set", "none"],
)
def test_pods_of_a_daemon_set_share_an_id_on_their_node(
    owners: list[tuple[str, str, bool]], path: str
) -> None:
    """What a DaemonSet controls is its part of the node; every other pod is itself."""
    references = [
        {"apiVersion": version, "kind": kind, "name": "web", "uid": UID, "controller": controller}
        for version, kind, controller in owners
    ]
    meta = {"namespace": "shop", "name": "web-x7", "uid": OTHER, "ownerReferences": references}
    pod = {"metadata": meta, "spec": {"nodeName": "n1"}}
    assert id_of("cluster.nsmesh", pod) == f"spiffe://cluster.nsmesh/ns/shop/{path}"
