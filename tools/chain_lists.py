# ruff: noqa: INP001 - a script, in no package
"""The chains of all roles, built as they are with identities, and listed for docs/architecture.md."""

from __future__ import annotations

from nsmesh.chains.client import client
from nsmesh.chains.endpoint import PassthroughEndpoint, endpoint, registration
from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.nsmgr import Nsmgr
from nsmesh.chains.registry import memory_registry
from nsmesh.chains.secured import Secured
from nsmesh.core.element import Chain, Handler, Tail
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.by_kind import ByKind
from nsmesh.elements.keep_apart import KeepApart
from nsmesh.endpoints.base import TYPES, Endpoint, Hooks
from nsmesh.endpoints.idle import Idle
from nsmesh.endpoints.options import read_options
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.security.svid import SvidSource


class Nobody:
    """Peers of nobody: no chain is asked here."""

    async def get(self, url: str) -> Handler:
        """Fail."""
        raise AssertionError(url)


def listing() -> str:
    """Return a table with one row for each chain, its elements outermost first."""
    rows = [
        f"| {title} | {' > '.join(type(element).__name__ for element in chain.elements)} |"
        for title, chain in chains().items()
    ]
    return "\n".join(["| chain | elements |", "|---|---|", *rows])


def chains() -> dict[str, Chain]:
    """Return the chains by the names that the page gives them."""
    secured = Secured(SvidSource())
    return {**_asking(secured), **_between(secured), **_answering(secured), **_registry(secured)}


def _asking(secured: Secured) -> dict[str, Chain]:
    nsc = client(
        "nsc",
        manager="unix:///nsmgr",
        peers=Nobody(),
        tokens=secured.tokens,
        function=(KeepApart(),),
        checks=secured.checks(),
    )
    register = registration(
        "nse",
        manager="unix:///nsmgr",
        peers=Nobody(),
        tokens=secured.tokens,
        finds=True,
        checks=secured.registry_checks(),
    )
    return {"client": nsc, "registration": register}


def _between(secured: Secured) -> dict[str, Chain]:
    manager = Nsmgr(
        "nsmgr",
        "unix:///nsmgr",
        registry="unix:///registry",
        peers=Nobody(),
        tokens=secured.tokens,
        policies=secured.policies(),
        registry_front=secured.registry_front(),
        registry_checks=secured.registry_checks(),
    )
    forwarder = Forwarder(
        "forwarder",
        registry=Tail(),
        datapath=FakeDatapath(),
        mechanisms=[Kernel()],
        peers=Nobody(),
        tokens=secured.tokens,
        policies=secured.policies(),
    )
    return {
        "manager": manager.server,
        "manager, onward": manager.onward,
        "manager, registry": manager.registry,
        "forwarder": forwarder.server,
        "forwarder, onward": forwarder.onward,
        "forwarder, registry": forwarder.registry,
    }


def _answering(secured: Secured) -> dict[str, Chain]:
    responder, firewall = _function("icmp-responder"), _function("firewall")
    end = endpoint(
        "nse",
        Idle(0, lambda: None),
        *responder.elements(),
        Hooks(responder),
        mechanisms=[Kernel()],
        tokens=secured.tokens,
        policies=secured.policies(),
    )
    middle = PassthroughEndpoint(
        "nse",
        *firewall.elements(),
        Hooks(firewall),
        labels={},
        manager="unix:///nsmgr",
        serves=[Kernel()],
        asks=[Kernel()],
        peers=Nobody(),
        tokens=secured.tokens,
        policies=secured.policies(),
    )
    return {
        "endpoint (icmp-responder)": end,
        "function in the middle (firewall)": middle.server,
        "function in the middle, onward": middle.onward,
    }


def _registry(secured: Secured) -> dict[str, Chain]:
    registry = memory_registry(front=secured.registry_front())
    (by_kind,) = (element for element in registry.elements if isinstance(element, ByKind))
    return {
        "registry": registry,
        "registry, services": by_kind.services,
        "registry, endpoints": by_kind.endpoints,
    }


def _function(kind: str) -> Endpoint:
    cls = TYPES[kind]
    return cls("nse", read_options(cls.Options, {}, {}, endpoint="nse"))
