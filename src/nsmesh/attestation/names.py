"""SPIFFE IDs of pods: ``spiffe://TRUST-DOMAIN/ns/NAMESPACE/pod/POD``, one for each pod.

The pods of a DaemonSet share one on each node, ``spiffe://TRUST-DOMAIN/ns/NAMESPACE/ds/DAEMONSET/node/NODE``:
what succeeds a pod there goes on with its work, and its neighbours must know it again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nsmesh.security.spiffe import SpiffeId

SIGN = "/nsmesh.attestation.Authority/Sign"
"""The one method of the CA: a SignRequest, answered by an Identity."""
TOKEN = "authorization"  # noqa: S105 - the name of a header
"""Metadata with the agent's service-account token, as ``Bearer TOKEN``."""
POD = "nsmesh-pod"
"""Metadata with the name of the pod that an ID is asked for."""
_NAME = "[a-z0-9.-]{1,253}"
_POD = re.compile(rf"/ns/([a-z0-9-]{{1,63}})/pod/({_NAME})")
_MEMBER = re.compile(rf"/ns/([a-z0-9-]{{1,63}})/ds/({_NAME})/node/({_NAME})")


@dataclass(frozen=True, slots=True)
class Member:
    """The part of a DaemonSet on one node, whichever pod plays it."""

    namespace: str
    daemon_set: str
    node: str


def pod_id(trust_domain: str, namespace: str, pod: str) -> str:
    """Return the ID of a pod."""
    return f"spiffe://{trust_domain}/ns/{namespace}/pod/{pod}"


def member_id(trust_domain: str, member: Member) -> str:
    """Return the ID of a DaemonSet's pods on a node."""
    return f"spiffe://{trust_domain}/ns/{member.namespace}/ds/{member.daemon_set}/node/{member.node}"


def pod_of(identity: SpiffeId) -> tuple[str, str] | None:
    """Return namespace and name of the pod that an ID is of; None for any other ID."""
    found = _POD.fullmatch(identity.path)
    return (found[1], found[2]) if found else None


def member_of(identity: SpiffeId) -> Member | None:
    """Return which DaemonSet's ID on which node this is; None for any other ID."""
    found = _MEMBER.fullmatch(identity.path)
    return Member(*found.groups()) if found else None


def daemon_set_of(pod: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return name and uid of the DaemonSet that a pod says it is of; None for a pod of anything else."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        group = str(owner.get("apiVersion", "")).partition("/")[0]
        if owner.get("controller") and owner.get("kind") == "DaemonSet" and group == "apps":
            return str(owner.get("name")), str(owner.get("uid"))
    return None


def id_of(trust_domain: str, pod: Mapping[str, Any]) -> str:
    """Return the ID of a pod as the API server shows it."""
    meta = pod["metadata"]
    owner = daemon_set_of(pod)
    if owner is None:
        return pod_id(trust_domain, meta["namespace"], meta["name"])
    return member_id(trust_domain, Member(meta["namespace"], owner[0], pod["spec"]["nodeName"]))
