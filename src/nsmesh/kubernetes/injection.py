"""The containers, volumes and labels that give a pod its wires; pure functions of the settings."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as its JSON says."""

SPIRE_SOCKETS = "/run/spire/sockets"
NSM_SOCKETS = "/var/lib/networkservicemesh"
SPIRE_ENDPOINT = f"unix://{SPIRE_SOCKETS}/agent.sock"
SPIRE_DRIVER = "csi.spiffe.io"
NSM_DRIVER = "csi.networkservicemesh.io"
DRIVERS = (SPIRE_DRIVER, NSM_DRIVER)
SPIRE_VOLUME = "spire-agent-socket"
NSM_VOLUME = "nsm-socket"
LEVEL_LABEL = "pod-security.kubernetes.io/enforce"
NOBODY = 65532
"""User of containers that name none: no file of the image is theirs."""
PRIVILEGED = "privileged"
RESTRICTED = "restricted"
FOR_EVER = 2**31 - 1
"""How often a probe may fail, at most: the type of the field holds no more."""


@dataclass(frozen=True, slots=True)
class Injection:
    """What is put into an annotated pod.

    ``init_images`` run to their end before the pod's own containers, ``images`` beside them; with
    ``native_sidecar`` the latter are init containers with ``restartPolicy: Always``, which end after the
    pod's own containers and do not keep a Job from completing. ``init_args`` and ``args``: what those images
    are started with, for an image of several roles; the last one is the container's name then. ``envs``:
    entries ``NAME=value``. ``limits`` and ``requests``: Kubernetes quantities by resource name. ``silent``: a
    bad annotation is put into the pod as it is, and only the client says what is wrong with it.
    ``started`` and ``at_start``: commands in native sidecars that hold the pod back, one as a probe that has
    to succeed, one as a hook that has to end. For the hook nobody waits until the kubelet looks again, but
    meanwhile it shows no log of the pod, and does not end it. The folders are those of the node; in the pod
    they are where NSM has them. ``user``: the number of the user that runs the containers where root is
    barred and the pod names none; 0: that of the image.
    """

    annotation: str = "networkservicemesh.io"
    variable: str = "NSM_NETWORK_SERVICES"
    init_images: Sequence[str] = ()
    images: Sequence[str] = ()
    init_args: Sequence[str] = ()
    args: Sequence[str] = ()
    envs: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=lambda: {"memory": "80Mi", "cpu": "200m"})
    requests: Mapping[str, str] = field(default_factory=lambda: {"memory": "40Mi", "cpu": "100m"})
    native_sidecar: bool = False
    started: Sequence[str] = ()
    at_start: Sequence[str] = ()
    silent: bool = False
    spire_folder: str = SPIRE_SOCKETS
    nsm_folder: str = NSM_SOCKETS
    user: int = NOBODY


def container_name(image: str) -> str:
    """Return the last part of an image's name, without tag and digest: ``cmd-nsc``."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def injected(
    settings: Injection, value: str, *, generated: bool, level: str, has_user: bool = False
) -> tuple[list[Object], list[Object]]:
    """Return the init containers and the containers to add.

    ``value``: the annotation. ``generated``: the pod gets a generated name, which is unique by itself.
    ``level``: the Pod Security level that the namespace enforces, empty for none. ``has_user``: the pod says
    itself who runs its containers.
    """
    user = 0 if has_user else settings.user
    name = "$(POD_NAME)" if generated else f"$(POD_NAME)-{uuid.uuid4()}"

    def build(image: str, args: Sequence[str]) -> Object:
        return _container(settings, image, args, value, name, level=level, user=user)

    first = [build(image, settings.init_args) for image in settings.init_images]
    beside = [build(image, settings.args) for image in settings.images]
    if settings.native_sidecar:
        stays: Object = {"restartPolicy": "Always"}
        if settings.at_start:
            stays["lifecycle"] = {"postStart": {"exec": {"command": list(settings.at_start)}}}
        if settings.started:
            stays["startupProbe"] = {
                "exec": {"command": list(settings.started)},
                "timeoutSeconds": 30,
                "periodSeconds": 1,
                "failureThreshold": FOR_EVER,
            }
        return [*first, *({**one, **stays} for one in beside)], []
    return first, beside


def bars_directories(level: str) -> bool:
    """Whether a Pod Security level bars directories of the node from pods."""
    return level not in ("", PRIVILEGED)


def volumes(settings: Injection, level: str) -> list[Object]:
    """Return the volumes that those mount: directories of the node, or CSI where barred."""
    if bars_directories(level):
        return [_csi(SPIRE_VOLUME, SPIRE_DRIVER), _csi(NSM_VOLUME, NSM_DRIVER)]
    return [_directory(SPIRE_VOLUME, settings.spire_folder), _directory(NSM_VOLUME, settings.nsm_folder)]


def _container(
    settings: Injection, image: str, args: Sequence[str], value: str, name: str, *, level: str, user: int
) -> Object:
    own = [
        {"name": "SPIFFE_ENDPOINT_SOCKET", "value": SPIRE_ENDPOINT},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": settings.variable, "value": value},
        {"name": "NSM_NAME", "value": name},
    ]
    made: Object = {
        "name": args[-1] if args else container_name(image),
        "image": image,
        **({"args": list(args)} if args else {}),
        "imagePullPolicy": "IfNotPresent",
        "env": [*map(_variable, settings.envs), *own],
        "resources": {"limits": dict(settings.limits), "requests": dict(settings.requests)},
        "volumeMounts": [
            {"name": SPIRE_VOLUME, "mountPath": SPIRE_SOCKETS, "readOnly": True},
            {"name": NSM_VOLUME, "mountPath": NSM_SOCKETS, "readOnly": True},
        ],
    }
    if level == RESTRICTED:
        # A pod may fulfil the level by its own containers alone, so ours have to fulfil it by themselves.
        made["securityContext"] = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            # An image that names no user, or a user by name, would not be started.
            **({"runAsUser": user} if user else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    return made


def _variable(entry: str) -> Object:
    # Only the first '=' separates: a value may hold others, and none of it is lost.
    name, _, value = entry.partition("=")
    return {"name": name.strip(), "value": value}


def _directory(name: str, path: str) -> Object:
    # Made where it is missing: on a node that starts, a pod may come before what listens in it, and waits for
    # the socket. NSM demands the directory, and the kubelet then tries the mount again for up to two minutes.
    return {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}


def _csi(name: str, driver: str) -> Object:
    return {"name": name, "csi": {"driver": driver, "readOnly": True}}
