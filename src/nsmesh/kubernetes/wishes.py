"""Which wires a pod wishes for, and who is to make them; pure functions of objects of the API server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nsmesh.core.errors import Invalid
from nsmesh.model.messages import KERNEL
from nsmesh.model.nsurl import MECHANISMS, NetworkServiceUrl, NsUrlError, parse_list

ANNOTATION = "networkservicemesh.io"
MODE = "networkservicemesh.io/mode"
AGENT, SIDECAR = "agent", "sidecar"
MODES = (AGENT, SIDECAR)
VARIABLE = "NSM_NETWORK_SERVICES"
"""By it a client in a pod knows what to ask for."""
OVER = ("Succeeded", "Failed")
"""Phases of a pod that will run no more."""

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pod wishes for. ``text``: the network service URLs as they are written."""

    text: str
    by_agent: bool

    def wires(self) -> list[NetworkServiceUrl]:
        """Return the wires, in order; raises Invalid for a text that names none."""
        mechanisms = (KERNEL,) if self.by_agent else MECHANISMS
        try:
            found = parse_list(self.text, mechanisms)
        except NsUrlError as error:
            raise Invalid(f"annotation {ANNOTATION}: {error}") from error
        if not found:
            raise Invalid(f"annotation {ANNOTATION} is empty", remedy="write kernel://SERVICE/INTERFACE")
        return found


def wish_of(pod: Object, namespace: Object, default_mode: str = SIDECAR) -> Wish | None:
    """Return what a pod wishes for; None for a pod without a wish, and for one that is over.

    The pod's own annotations count before those of its namespace. A pod that has a client wishes for what
    that client was told, and its client makes the wires. Raises Invalid for a mode that is none.
    """
    if pod.get("status", {}).get("phase") in OVER:
        return None
    told = client_of(pod)
    if told is not None:
        return Wish(told, by_agent=False) if told else None
    text = _annotation(pod, namespace, ANNOTATION)
    if not text.strip():
        return None
    return Wish(text, by_agent=mode_of(pod, namespace, default_mode) == AGENT)


def mode_of(pod: Object, namespace: Object, default_mode: str = SIDECAR) -> str:
    """Return who makes a pod's wires: ``agent`` or ``sidecar``; raises Invalid for another word."""
    mode = _annotation(pod, namespace, MODE) or default_mode
    if mode not in MODES:
        raise Invalid(f"annotation {MODE} is {mode!r}", remedy=f"say {' or '.join(MODES)}")
    return mode


def client_of(pod: Object) -> str | None:
    """Return what the client among a pod's containers was told to ask for; None where no client is.

    Empty where it is not told by a value that stands in the pod.
    """
    for container in _containers(pod):
        for variable in container.get("env") or ():
            if variable.get("name") == VARIABLE:
                return str(variable.get("value") or "")
    return None


def is_in_node_network(pod: Object) -> bool:
    """Whether a pod has no network of its own."""
    return bool(pod.get("spec", {}).get("hostNetwork"))


def _containers(pod: Object) -> Iterator[Object]:
    spec = pod.get("spec", {})
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _annotation(pod: Object, namespace: Object, name: str) -> str:
    for item in (pod, namespace):
        annotations = item.get("metadata", {}).get("annotations") or {}
        if name in annotations:
            return str(annotations[name])
    return ""
