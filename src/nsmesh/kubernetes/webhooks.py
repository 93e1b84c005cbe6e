"""What an admission webhook asks the API server to call it for; pure functions.

Three webhooks of one configuration, and each object that is made comes to one of them at most:

- *objects*: what carries the annotation itself;
- *namespaces*: pods without an annotation of their own, in a namespace that is known to carry it;
- *others*: pods in all other namespaces. One of those may have got the annotation a moment ago.

The first two fail as they are told to, the last one never: whoever has nothing to do with wires does not wait
for the webhook, when it is away. See docs/decisions/0045.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.injection import Object
from nsmesh.kubernetes.patches import APPS

GROUP = "admissionregistration.k8s.io/v1"
KIND = "MutatingWebhookConfiguration"
PLURAL = "mutatingwebhookconfigurations"
LABEL = "networkservicemesh.io/webhook"
DISABLED = "disabled"
"""A namespace or an object with this value of the label never comes to the webhook."""
FAIL, IGNORE = "Fail", "Ignore"
PATH = "/mutate"
PATIENCE = 2
"""Seconds that a pod which has most likely nothing to do with wires waits for the webhook."""
_SUFFIX = "webhook.networkservicemesh.io"
_NAME = "kubernetes.io/metadata.name"
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Registration:
    """How an API server reaches the webhook, and for what.

    ``service`` in ``namespace`` at ``port``. ``exempt``: namespaces that never come here, besides its own.
    ``failure_policy``: what becomes of annotated objects when it is away. ``timeout``: seconds they wait.
    """

    service: str
    namespace: str
    port: int = 443
    annotation: str = "networkservicemesh.io"
    exempt: tuple[str, ...] = ()
    failure_policy: str = FAIL
    timeout: int = 10

    def __post_init__(self) -> None:
        """Refuse what an API server would refuse, and what would change the meaning of an expression."""
        if not _KEY.fullmatch(self.annotation):
            raise Invalid(
                f"NSM_ANNOTATION: {self.annotation!r} is no name of an annotation",
                remedy="write letters, digits, '-', '_' and '.', such as networkservicemesh.io",
            )
        if self.failure_policy not in {FAIL, IGNORE}:
            raise Invalid(
                f"NSM_FAILURE_POLICY is {self.failure_policy!r}, which is no failure policy",
                remedy=f"say {FAIL} or {IGNORE}",
            )
        if not 1 <= self.timeout <= 30:
            raise Invalid(
                f"NSM_WEBHOOK_TIMEOUT: an API server waits 1 to 30 seconds for a webhook, not {self.timeout}",
                remedy="choose a time between",
            )

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The names by which the webhook is called; the first is the one that API servers verify."""
        return f"{self.service}.{self.namespace}.svc", f"{self.service}.{self.namespace}"

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        """The namespaces that never come here, sorted."""
        return tuple(sorted({*self.exempt, self.namespace}))


def webhooks(registration: Registration, bundle: str, annotated: Iterable[str]) -> list[Object]:
    """Return the webhooks of the configuration, with every field that an API server would fill in.

    ``bundle``: who signs our certificates, PEM. ``annotated``: namespaces that carry the annotation.
    """
    out = registration.out_of_reach
    known = sorted(set(annotated) - set(out))
    carries = (
        f"has(object.metadata.annotations) && '{registration.annotation}' in object.metadata.annotations"
    )
    pods = _rule("", "pods")
    workloads = _rule(APPS, "deployments", "daemonsets", "statefulsets", "replicasets")
    with_it = {"name": "annotated", "expression": carries}
    without = {"name": "not-annotated", "expression": f"!({carries})"}
    base = {
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "caBundle": base64.b64encode(bundle.encode()).decode(),
            "service": {
                "name": registration.service,
                "namespace": registration.namespace,
                "path": PATH,
                "port": registration.port,
            },
        },
        "failurePolicy": registration.failure_policy,
        "matchPolicy": "Equivalent",
        "objectSelector": {"matchExpressions": [_expression(LABEL, "NotIn", DISABLED)]},
        "reinvocationPolicy": "Never",
        "sideEffects": "None",
        "timeoutSeconds": registration.timeout,
    }
    found = [
        {
            **base,
            "name": f"objects.{_SUFFIX}",
            "matchConditions": [with_it],
            "namespaceSelector": _namespaces(_expression(_NAME, "NotIn", *out)),
            "rules": [pods, workloads],
        },
        {
            **base,
            "name": f"others.{_SUFFIX}",
            "failurePolicy": IGNORE,
            "matchConditions": [without],
            "namespaceSelector": _namespaces(_expression(_NAME, "NotIn", *sorted({*out, *known}))),
            "rules": [pods],
            "timeoutSeconds": min(PATIENCE, registration.timeout),
        },
    ]
    if known:  # an empty selector of names would be refused
        found.insert(
            1,
            {
                **base,
                "name": f"namespaces.{_SUFFIX}",
                "matchConditions": [without],
                "namespaceSelector": _namespaces(_expression(_NAME, "In", *known)),
                "rules": [pods],
            },
        )
    return found


def bundle_of(configuration: Mapping[str, Any]) -> str:
    """Return the bundle of every webhook of a configuration; empty where they differ or there is none."""
    found = {one.get("clientConfig", {}).get("caBundle") or "" for one in configuration.get("webhooks") or ()}
    return base64.b64decode(found.pop()).decode(errors="replace") if len(found) == 1 else ""


def _rule(group: str, *resources: str) -> Object:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": list(resources),
        "scope": "Namespaced",
    }


def _expression(key: str, operator: str, *values: str) -> Object:
    return {"key": key, "operator": operator, "values": list(values)}


def _namespaces(names: Object) -> Object:
    return {"matchExpressions": [names, _expression(LABEL, "NotIn", DISABLED)]}
