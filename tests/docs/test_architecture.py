"""The chains that docs/architecture.md lists are those that the code builds."""

from __future__ import annotations

import re

from docs_console import ROOT

from nsmesh.chains.client import client
from nsmesh.chains.endpoint import PassthroughEndpoint, endpoint, registration
from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.nsmgr import Nsmgr
from nsmesh.chains.registry import memory_registry
from nsmesh.chains.secured import Secured
from nsmesh.core.element import Tail
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.by_kind import ByKind
from nsmesh.endpoints.base import TYPES, Hooks
from nsmesh.endpoints.idle import Idle
from nsmesh.endpoints.options import read_options
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.security.svid import SvidSource

PAGE = (ROOT / "docs" / "architecture.md").read_text()


class Nobody:
    """Peers of nobody: no chain is asked here."""

    async def get(self, url):
        raise AssertionError(url)


def names(chain):
    """Return the classes of the elements of a chain, outermost first."""
    return [type(element).__name__ for element in chain.elements]


def built():
    """Return the chains of all roles, as with identities, by the names that the page gives them."""
    secured = Secured(SvidSource())
    common = {"peers": Nobody(), "tokens": secured.tokens}
    mechanisms = [Kernel(inode_url="file:///run/netns/x")]
    checks, registry_checks = secured.checks(), secured.registry_checks()
    manager = Nsmgr(
        "nsmgr",
        "unix:///nsmgr",
        registry="unix:///registry",
        policies=secured.policies(),
        registry_front=secured.registry_front(),
        registry_checks=registry_checks,
        **common,
    )
    forwarder = Forwarder(
        "forwarder",
        registry=Tail(),
        datapath=FakeDatapath(),
        mechanisms=mechanisms,
        policies=secured.policies(),
        **common,
    )
    responder = TYPES["icmp-responder"](
        "nse", read_options(TYPES["icmp-responder"].Options, {}, {}, endpoint="nse")
    )
    end = endpoint(
        "nse",
        Idle(0, lambda: None),
        *responder.elements(),
        Hooks(responder),
        mechanisms=mechanisms,
        tokens=secured.tokens,
        policies=secured.policies(),
    )
    firewall = TYPES["firewall"]("nse", read_options(TYPES["firewall"].Options, {}, {}, endpoint="nse"))
    middle = PassthroughEndpoint(
        "nse",
        *firewall.elements(),
        Hooks(firewall),
        labels={},
        manager="unix:///nsmgr",
        serves=mechanisms,
        asks=mechanisms,
        policies=secured.policies(),
        **common,
    )
    registry = memory_registry(front=secured.registry_front())
    (by_kind,) = (element for element in registry.elements if isinstance(element, ByKind))
    return {
        "client": client("nsc", manager="unix:///nsmgr", checks=checks, **common),
        "manager": manager.server,
        "manager, onward": manager.onward,
        "manager, registry": manager.registry,
        "forwarder": forwarder.server,
        "forwarder, onward": forwarder.onward,
        "endpoint (icmp-responder)": end,
        "function in the middle (firewall)": middle.server,
        "function in the middle, onward": middle.onward,
        "registration": registration("nse", manager="unix:///nsmgr", checks=registry_checks, **common),
        "registry": registry,
        "registry, services": by_kind.services,
        "registry, endpoints": by_kind.endpoints,
    }


def test_the_chains_of_the_page_are_those_of_the_code():
    """Every chain is listed, with its elements in their order."""
    listed = dict(re.findall(r"^\| ([^|`]+?) \| (\w+(?: > \w+)+) \|$", PAGE, re.MULTILINE))
    assert {title: chain.split(" > ") for title, chain in listed.items()} == {
        title: names(chain) for title, chain in built().items()
    }
