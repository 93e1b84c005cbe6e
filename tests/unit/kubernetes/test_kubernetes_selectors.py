"""What is said of a pod to SPIRE is what its attestor says of it."""

from nsmesh.kubernetes.pod_selectors import selectors_of


def test_a_pod_is_named_as_the_attestor_names_it():
    """Namespace, account, node, name, uid, labels and owners; nothing of containers."""
    owner = {"kind": "ReplicaSet", "name": "web-1", "uid": "2"}
    meta = {
        "namespace": "shop",
        "name": "web-1-x",
        "uid": "1",
        "labels": {"app": "web"},
        "ownerReferences": [owner],
    }
    spec = {"serviceAccountName": "seller", "nodeName": "n", "containers": [{"name": "c"}]}
    assert selectors_of({"metadata": meta, "spec": spec}) == [
        "k8s:ns:shop",
        "k8s:sa:seller",
        "k8s:node-name:n",
        "k8s:pod-name:web-1-x",
        "k8s:pod-uid:1",
        "k8s:pod-label:app:web",
        "k8s:pod-owner:ReplicaSet:web-1",
        "k8s:pod-owner-uid:ReplicaSet:2",
    ]


def test_a_pod_without_labels_and_owners():
    """The account that nobody names is the one that the API server fills in."""
    found = selectors_of({"metadata": {"namespace": "a", "name": "b", "uid": "c", "labels": None}})
    assert found == ["k8s:ns:a", "k8s:sa:default", "k8s:node-name:", "k8s:pod-name:b", "k8s:pod-uid:c"]
