"""What an admission webhook answers: an AdmissionReview in, a JSON patch or a refusal out. Nothing is asked.

The annotation of a workload object gives wires to the pods of its template; that of a namespace to each pod
without an annotation of its own. Where the agent of a node makes the wires, pods stay as they are.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from typing import Any

from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.injection import (
    DRIVERS,
    LEVEL_LABEL,
    Injection,
    Object,
    bars_directories,
    injected,
    volumes,
)
from nsmesh.kubernetes.wishes import AGENT, MODE, mode_of
from nsmesh.model.messages import KERNEL
from nsmesh.model.nsurl import MECHANISMS, NsUrlError, parse_list

WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet")
"""Kinds of group apps whose template is patched, besides Pod."""
APPS = "apps"
MIRROR = "kubernetes.io/config.mirror"
"""Annotation of pods that stand for a file of a node."""
SOURCES = ("hostPath", "csi")
"""Where a volume of ours may have its files from."""


def answer(
    review: Mapping[str, Any],
    settings: Injection,
    namespace: Mapping[str, Any],
    drivers: Collection[str] = DRIVERS,
) -> Object:
    """Return the AdmissionReview that answers ``review``.

    ``namespace``: the Namespace object in which the reviewed object is made. ``drivers``: the CSI drivers of
    the cluster, as far as we need them. Raises :class:`Invalid` where
    ``review`` is no AdmissionReview with a request; a bad annotation is refused in the answer.
    """
    request = review.get("request")
    if not isinstance(request, Mapping) or not isinstance(request.get("uid"), str):
        raise Invalid(
            "the webhook was sent something that is no AdmissionReview with a request",
            remedy="only the API server should call it",
        )
    response: Object = {"uid": request["uid"], "allowed": True}
    warning = _unheeded(request, settings.annotation)
    if warning:
        response["warnings"] = [warning]
    try:
        changes = patch(request, settings, namespace, drivers)
    except Invalid as error:
        response |= {"allowed": False, "status": {"code": 400, "reason": "Invalid", "message": str(error)}}
    else:
        if changes:
            encoded = base64.b64encode(json.dumps(changes).encode()).decode()
            response |= {"patchType": "JSONPatch", "patch": encoded}
    version = review.get("apiVersion", "admission.k8s.io/v1")
    return {"apiVersion": version, "kind": "AdmissionReview", "response": response}


def patch(
    request: Mapping[str, Any],
    settings: Injection,
    namespace: Mapping[str, Any],
    drivers: Collection[str] = DRIVERS,
) -> list[Object]:
    """Return the JSON patch for an admission request, empty where nothing is to be done.

    Raises :class:`Invalid` for an annotation that names no network services, and for a pod that could never
    start with what it would get, unless ``settings.silent``.
    """
    made = request.get("object")
    kind = kind_of(request)
    if request.get("operation") != "CREATE" or not kind or not isinstance(made, Mapping):
        return []
    found = _wanted(kind, made, settings.annotation, namespace)
    if found is None:
        return []
    value, where = found
    pod, root = (made, "") if kind == "Pod" else (made["spec"]["template"], "/spec/template")
    meta = _part(made, "metadata")
    unfit = _unfit(pod)
    if unfit and where != _named(kind, meta):
        return []  # of all the pods of a namespace one that is none of the mesh's
    by_agent = mode_of(made, namespace) == AGENT
    if not settings.silent:
        _check(value, where, settings.annotation, (KERNEL,) if by_agent else MECHANISMS)
        if unfit:
            raise Invalid(f"{where} cannot have wires: it {unfit}", remedy=f"remove {settings.annotation}")
    if by_agent:
        return _handed_over(kind, value, settings.annotation)
    level = level_of(namespace)
    if not settings.silent:
        _check_drivers(level, drivers, where)
    # A generated name is unique by itself; one that is numbered by a StatefulSet is in its namespace alone.
    generated = not meta.get("name") if kind == "Pod" else kind != "StatefulSet"
    return _changes(pod, root, settings, value, generated=generated, level=level, whose=_named(kind, meta))


def level_of(namespace: Mapping[str, Any]) -> str:
    """Return the Pod Security level that a namespace enforces, empty for none."""
    return str(_part(namespace, "metadata", "labels").get(LEVEL_LABEL, ""))


def _check_drivers(level: str, drivers: Collection[str], where: str) -> None:
    missing = [one for one in DRIVERS if one not in drivers]
    if bars_directories(level) and missing:
        raise Invalid(
            f"{where} would never start: its namespace enforces the Pod Security level {level}, where clients"
            f" get their sockets by CSI drivers, and this cluster has no {' and no '.join(missing)}",
            remedy=f"write {MODE}: {AGENT}, and the agent of the node makes the wires from outside; or have"
            " the drivers installed, with volumeLifecycleModes: [Ephemeral]",
        )


def _unfit(pod: Mapping[str, Any]) -> str:
    """Return why a pod cannot have wires of its own, or nothing."""
    spec = _part(pod, "spec")
    if spec.get("hostNetwork"):
        return "is in the node's network, so they would be the node's"
    system = _part(spec, "os").get("name", "linux")
    return "" if system == "linux" else f"runs on {system}"


def _handed_over(kind: str, value: str, annotation: str) -> list[Object]:
    """Return what makes the agent of a node see a wish: it looks at pods, and adds nothing to them."""
    if kind == "Pod":
        return []
    # the template has no annotations, or the wish would not have been heeded
    return [_add("/spec/template/metadata/annotations", {annotation: value, MODE: AGENT})]


def kind_of(request: Mapping[str, Any]) -> str:
    """Return the kind of what is made, where it is one that is patched: a kind is of a group."""
    asked = _part(request, "kind")
    kind, group = str(asked.get("kind", "")), asked.get("group", "")
    ours = (kind == "Pod" and not group) or (kind in WORKLOADS and group == APPS)
    return kind if ours and not request.get("subResource") else ""


def _unheeded(request: Mapping[str, Any], annotation: str) -> str:
    """Return what an author should know whose annotation has no effect, or nothing."""
    kind, made = kind_of(request), request.get("object")
    if kind not in WORKLOADS or request.get("operation") != "CREATE" or not isinstance(made, Mapping):
        return ""
    inner = _part(made, "spec", "template", "metadata", "annotations")
    if not inner or annotation in inner or not _part(made, "metadata", "annotations").get(annotation):
        return ""
    return (
        f"annotation {annotation} of {_named(kind, _part(made, 'metadata'))} has no effect: its template has"
        f" annotations of its own; write it there"
    )


def _named(kind: str, meta: Mapping[str, Any]) -> str:
    return f"{kind} {meta.get('name') or meta.get('generateName') or ''!r}"


def _wanted(
    kind: str, made: Mapping[str, Any], annotation: str, namespace: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Return the annotation's value and the thing that carries it."""
    meta = _part(made, "metadata")
    if MIRROR in _part(meta, "annotations"):
        return None  # the kubelet makes such a pod again where it is not what its file says
    own = _part(meta, "annotations").get(annotation, "")
    if kind == "Pod":
        if own:
            return own, _named(kind, meta)
        inherited = _part(namespace, "metadata", "annotations").get(annotation, "")
        return (inherited, f"namespace {_part(namespace, 'metadata').get('name')!r}") if inherited else None
    if not own:
        return None
    # A Deployment copies its annotations to its ReplicaSets, whose template has been patched already.
    owners = meta.get("ownerReferences") or ()
    copied = kind == "ReplicaSet" and any(one.get("kind") == "Deployment" for one in owners)
    if copied or _part(made, "spec", "template", "metadata", "annotations"):
        return None
    return own, _named(kind, meta)


def _check(value: str, where: str, annotation: str, mechanisms: tuple[str, ...]) -> None:
    try:
        wishes = parse_list(value, mechanisms)
    except NsUrlError as error:
        raise Invalid(
            f"annotation {annotation}: {value!r} of {where} names no network service: character"
            f" {error.position}: {error.what}",
            remedy=error.remedy,
        ) from error
    if not wishes:
        raise Invalid(
            f"annotation {annotation} of {where} is blank",
            remedy="write kernel://SERVICE, or remove the annotation",
        )


def _changes(
    pod: Mapping[str, Any],
    root: str,
    settings: Injection,
    value: str,
    *,
    generated: bool,
    level: str,
    whose: str,
) -> list[Object]:
    spec = _part(pod, "spec")
    has_user = bool(_part(spec, "securityContext").get("runAsUser"))
    first, beside = injected(settings, value, generated=generated, level=level, has_user=has_user)
    if _has_them(spec, [*first, *beside], settings.variable, whose):
        return []
    held = _missing(spec, volumes(settings, level), whose)
    labels = {**_part(pod, "metadata", "labels"), **settings.labels}
    changes = [
        # In front, so that the pod's own init containers have the wires already.
        _add(f"{root}/spec/initContainers", [*first, *(spec.get("initContainers") or ())]),
        _add(f"{root}/spec/containers", [*(spec.get("containers") or ()), *beside]),
        _add(f"{root}/spec/volumes", [*(spec.get("volumes") or ()), *held]),
    ]
    if "metadata" in pod:
        return [*changes, _add(f"{root}/metadata/labels", labels)]
    return [*changes, _add(f"{root}/metadata", {"labels": labels})]


def _has_them(spec: Mapping[str, Any], ours: list[Object], variable: str, whose: str) -> bool:
    """Say whether a pod has our containers already; raises Invalid where another one has such a name.

    It has them where its template was patched, or it was made from a patched pod. They are known by name and
    by the variable that the webhook sets.
    """
    names = {one["name"] for one in ours}
    present = [one for key in ("initContainers", "containers") for one in spec.get(key) or ()]
    same = [one for one in present if one.get("name") in names]
    for one in same:
        if not any(entry.get("name") == variable for entry in one.get("env") or ()):
            raise Invalid(
                f"{whose} has a container {one['name']!r} of its own, and one of that name is to be added for"
                " its wires",
                remedy="rename the container, or remove the annotation",
            )
    return bool(same)


def _missing(spec: Mapping[str, Any], ours: list[Object], whose: str) -> list[Object]:
    """Return the volumes that a pod lacks; raises Invalid where another one has such a name."""
    present = {one.get("name"): one for one in spec.get("volumes") or ()}
    missing = []
    for one in ours:
        other = present.get(one["name"])
        if other is None:
            missing.append(one)
        elif _place(other) != _place(one):
            raise Invalid(
                f"{whose} has a volume {one['name']!r} of its own, and one of that name is to be added for"
                f" its wires, {_place(one)}",
                remedy="rename the volume, or remove the annotation",
            )
    return missing


def _place(volume: Mapping[str, Any]) -> str:
    """Return where a volume's files are."""
    path, driver = (_part(volume, source) for source in SOURCES)
    return f"directory {path.get('path')}" if path else f"CSI driver {driver.get('driver')}"


def _add(path: str, value: object) -> Object:
    return {"op": "add", "path": path, "value": value}


def _part(whole: Mapping[str, Any], *names: str) -> Object:
    """Return a part of an object; what is absent, null or no mapping is empty."""
    for name in names:
        part = whole.get(name)
        whole = part if isinstance(part, Mapping) else {}
    return dict(whole)
