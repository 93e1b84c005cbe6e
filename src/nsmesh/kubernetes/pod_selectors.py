"""What SPIRE's attestor ``k8s`` would say of a pod, from the pod's object: a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def selectors_of(pod: Mapping[str, Any]) -> list[str]:
    """Return a pod's selectors as texts: namespace, account, name, uid, node, labels, owners.

    Those of containers and images are not among them: a pod that has no sidecar's wires is asked for by
    itself, and its containers may not be there yet.
    """
    meta, spec = pod["metadata"], pod.get("spec", {})
    values = [
        f"ns:{meta['namespace']}",
        f"sa:{spec.get('serviceAccountName') or 'default'}",
        f"node-name:{spec.get('nodeName', '')}",
        f"pod-name:{meta['name']}",
        f"pod-uid:{meta['uid']}",
        *(f"pod-label:{key}:{value}" for key, value in sorted((meta.get("labels") or {}).items())),
    ]
    for owner in meta.get("ownerReferences") or ():
        values += [
            f"pod-owner:{owner['kind']}:{owner['name']}",
            f"pod-owner-uid:{owner['kind']}:{owner['uid']}",
        ]
    return [f"k8s:{value}" for value in values]
