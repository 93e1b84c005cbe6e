"""SPIFFE IDs of pods: ``spiffe://TRUST-DOMAIN/ns/NAMESPACE/pod/POD``, one for each pod."""

from __future__ import annotations

import re
from pathlib import Path

from nsmesh.security.spiffe import SpiffeId

SIGN = "/nsmesh.attestation.Authority/Sign"
"""The one method of the CA: a SignRequest, answered by an Identity."""
TOKEN = "authorization"  # noqa: S105 - the name of a header
"""Metadata with the agent's service-account token, as ``Bearer TOKEN``."""
_PATH = re.compile(r"/ns/([a-z0-9-]{1,63})/pod/([a-z0-9.-]{1,253})")
_UID = re.compile(r"(?<![0-9A-Za-z])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?![0-9A-Za-z_-])")


def pod_id(trust_domain: str, namespace: str, pod: str) -> str:
    """Return the ID of a pod."""
    return f"spiffe://{trust_domain}/ns/{namespace}/pod/{pod}"


def pod_of(identity: SpiffeId) -> tuple[str, str] | None:
    """Return namespace and name of the pod that an ID is of; None for any other ID."""
    found = _PATH.fullmatch(identity.path)
    return (found[1], found[2]) if found else None


def uid_of_cgroups(text: str) -> str:
    """Return the pod's uid in the lines of ``/proc/PID/cgroup``, or nothing.

    Drivers write it with dashes (cgroupfs) or underscores (systemd). Where lines name more than one pod, the
    process is in none that could be trusted.
    """
    found = {uid.replace("_", "-") for uid in _UID.findall(text)}
    return found.pop() if len(found) == 1 else ""


def uid_of_process(pid: int, proc: Path = Path("/proc")) -> str:
    """Return the uid of the pod that a process belongs to; nothing where it is of none, or gone."""
    try:
        return uid_of_cgroups((proc / str(pid) / "cgroup").read_text())
    except OSError:
        return ""
