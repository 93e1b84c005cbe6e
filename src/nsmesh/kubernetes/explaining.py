"""Why a pod has the wires that it has, or has them not: step by step, as a Request would go. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.client import Object
from nsmesh.kubernetes.cluster_view import NODE, ClusterView, connection_row, is_over, labels_of
from nsmesh.kubernetes.wires import UP
from nsmesh.kubernetes.wishes import Wish, client_of, is_in_node_network, wish_of
from nsmesh.model.match import match_endpoints, match_forwarders
from nsmesh.model.messages import FORWARDER_SERVICE, NetworkService
from nsmesh.model.nsurl import NetworkServiceUrl

OK, BAD, HINT = "ok", "no", "?"


@dataclass(frozen=True, slots=True)
class Step:
    """One finding: how it is, what was found, and what to do about it."""

    verdict: str
    text: str
    remedy: str = ""


def explained(pod: Object, namespace: Object, view: ClusterView) -> Iterator[Step]:
    """Yield what decides over the wires of a pod, from what it asks for to the endpoint.

    ``view`` has the wires of the pod's namespace.
    """
    name = pod["metadata"]["name"]
    node = pod.get("spec", {}).get("nodeName", "")
    if not node:
        yield Step(BAD, f"pod {name} runs on no node yet", "see: kubectl describe pod")
    else:
        yield Step(OK, f"pod {name} is on node {node}, phase {pod.get('status', {}).get('phase', 'unknown')}")
    try:
        wish = wish_of(pod, namespace)
    except Invalid as error:
        yield Step(BAD, error.what, error.remedy)
        return
    if wish is None:
        yield _no_wish(pod)
        return
    yield from _asks(pod, wish)
    try:
        wishes = wish.wires()
    except Invalid as error:
        yield Step(BAD, error.what, error.remedy)
        return
    labels = {"podName": name, **({NODE: node} if node else {})}
    for one in wishes:
        yield from _wire(one, {**labels, **one.labels}, name, node, view)


def _no_wish(pod: Object) -> Step:
    if client_of(pod) == "":
        return Step(
            HINT, "the pod has a client, which is told by something else than a value what to ask for"
        )
    return Step(
        BAD, "the pod asks for no wire", "annotate it: networkservicemesh.io: kernel://SERVICE/INTERFACE"
    )


def _asks(pod: Object, wish: Wish) -> Iterator[Step]:
    if wish.by_agent:
        yield Step(OK, f"it asks for {wish.text}, and the agent of its node makes it")
        if is_in_node_network(pod):
            yield Step(BAD, "the pod is in the network of its node: nobody makes wires there")
    elif client_of(pod) is not None:
        yield Step(OK, f"its client asks for {wish.text}")
    else:
        yield Step(
            BAD,
            f"it asks for {wish.text}, and has no client",
            "annotate it before it is made, with the admission webhook there; or write "
            "networkservicemesh.io/mode: agent",
        )


def _wire(
    wish: NetworkServiceUrl, labels: dict[str, str], pod: str, node: str, view: ClusterView
) -> Iterator[Step]:
    rows = [connection_row(item) for item in view.connections]
    found = [row for row in rows if row["client"] == pod and row["service"] == wish.service]
    if wish.interface:
        found = [row for row in found if row["interface"] in {"", wish.interface}]
    for row in found:
        where = " > ".join(row["path"])
        if row["state"] == UP:
            yield Step(OK, f"wire {row['interface']} to {row['endpoint']} is up: {where}")
        else:
            yield Step(BAD, f"wire to {wish.service} is {row['state'] or 'not told of'}: {row['reason']}")
    if any(row["state"] == UP for row in found):
        return
    if not found:
        yield Step(
            BAD,
            f"no Request for {wish.service} is known",
            "its client's log, or that of the node agent, says why; wires are shown only where managers "
            "have NSM_MIRROR_CONNECTIONS",
        )
    if not view.services and not view.endpoints:
        yield Step(
            HINT,
            "nothing is registered in the API server: what a registry keeps in memory is not seen here",
            "registry.role=registry-k8s shows it",
        )
        return
    yield from _selection(wish, labels, view)
    yield from _forwarders(wish, labels, node, view)


def _selection(wish: NetworkServiceUrl, labels: dict[str, str], view: ClusterView) -> Iterator[Step]:
    """Yield which endpoints a Request with these labels may go to."""
    service = view.services.get(wish.service)
    providing = [one for one in view.endpoints if wish.service in one.network_service_names]
    if service is None:
        yield Step(BAD, f"there is no network service {wish.service}", "kubectl nsm get services shows them")
        return
    alive = [one for one in providing if not is_over(one)]
    if not alive:
        over = f"; the registrations of {len(providing)} are over" if providing else ""
        yield Step(
            BAD,
            f"no endpoint provides {wish.service}{over}",
            "start one, or read the log of the one there is",
        )
        return
    found = match_endpoints(labels, service, alive)
    if found.candidates:
        names = ", ".join(dict.fromkeys(one.name for one in found.candidates))
        yield Step(OK, f"endpoints that may serve it: {names}")
    else:
        yield Step(BAD, f"of {len(alive)} endpoints of {wish.service} none may serve it")
    for name, why in found.dropped:
        yield Step(HINT, f"{name} is left out: {why}")


def _forwarders(
    wish: NetworkServiceUrl, labels: dict[str, str], node: str, view: ClusterView
) -> Iterator[Step]:
    service = view.services.get(wish.service, NetworkService(name=wish.service))
    here = [one for one in view.forwarders if labels_of(one, FORWARDER_SERVICE).get(NODE, node) == node]
    alive = [one for one in here if not is_over(one)]
    if not alive:
        yield Step(BAD, f"node {node} has no forwarder", "see: kubectl -n nsm-system get pods -o wide")
        return
    found = match_forwarders(labels, service, alive)
    if found.candidates:
        yield Step(OK, f"forwarders of the node: {', '.join(one.name for one in found.candidates)}")
    for name, why in found.dropped:
        yield Step(HINT, f"forwarder {name} is left out: {why}")
