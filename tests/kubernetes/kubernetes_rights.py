"""Rights that were given, and those that were used: by rules of RBAC, and by the log of an API server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from kubernetes_lab import ApiServer, until

Right = tuple[str, str, str, str]
"""Group, resource (with subresource), verb, and name of the object; empty: any."""


def given(rules: Iterable[dict]) -> set[Right]:
    """Return the rights of rules of a Role or ClusterRole, one by one."""
    return {
        (group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [""]
    }


def _asked(server: ApiServer, account: str, namespace: str) -> Iterator[tuple[int, Right]]:
    who = f"system:serviceaccount:{namespace}:{account}"
    for line in (server.folder / "log/audit.json").read_text().splitlines():
        event = json.loads(line)
        about = event.get("objectRef")
        if event["user"]["username"] != who or not about:
            continue  # a path that is no object's, such as /readyz
        resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        code, name = event.get("responseStatus", {}).get("code", 0), about.get("name", "")
        yield code, (about.get("apiGroup", ""), resource, event["verb"], name)
        if (event["verb"], code) == ("patch", 201):  # an apply that makes an object needs both
            yield code, (about.get("apiGroup", ""), resource, "create", name)


def unused(server: ApiServer, account: str, namespace: str, rules: Iterable[dict]) -> set[Right]:
    """Return the rights that a service account has never used."""
    asked = {right for code, right in _asked(server, account, namespace) if code != 403}
    return {one for one in given(rules) if not any(one in {right, (*right[:3], "")} for right in asked)}


def denied(server: ApiServer, account: str, namespace: str) -> set[Right]:
    """Return what a service account was refused."""
    return {right for code, right in _asked(server, account, namespace) if code == 403}


def proven(server: ApiServer, account: str, namespace: str, rules: list[dict]) -> None:
    """Assert that an account used each of its rights, and lacked none; the log may be a moment behind."""
    try:
        until("each right is used", lambda: not unused(server, account, namespace, rules), limit=15)
    finally:
        left = unused(server, account, namespace, rules)
        assert not left, f"given and not needed: {sorted(left)}"
    assert not (lacking := denied(server, account, namespace)), f"needed and not given: {sorted(lacking)}"
