"""Endpoint: what a network function is made of. A new one is a subclass with options and a few lines.

An endpoint that ends a path gives addresses out (:class:`ResponderOptions`) and may look at each connection
in :meth:`Endpoint.granted` and :meth:`Endpoint.closed`. One in the middle of a chain sets ``passthrough`` and
joins the interface it serves with the one it asked for, in an element of its own.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid, NotFound
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.endpoints.firewall import Firewall, FirewallOptions
from nsmesh.endpoints.icmp_responder import IcmpResponderOptions, ResponderOptions
from nsmesh.endpoints.memif_answers import AnswerMemif, folder_of
from nsmesh.endpoints.remote_vlan import RemoteVlanOptions, listed
from nsmesh.endpoints.vpn_gateway import VpnGateway, VpnGatewayOptions
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.memif import Memif
from nsmesh.mechanisms.noop import Noop
from nsmesh.mechanisms.vlan import VlanGiver
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.names import nearest


class Endpoint:
    """A network function. ``Options`` is a frozen dataclass whose field docstrings are its help."""

    Options: ClassVar[type[Any]] = ResponderOptions
    passthrough: ClassVar[bool] = False
    by_manager: ClassVar[bool] = True
    """Whether it registers by its manager; else at the registry, and forwarders of any node ask it."""

    def __init__(self, name: str, options: Any) -> None:
        self.name = name
        self.options = options

    def elements(self) -> Sequence[Element]:
        """Return what stands in the endpoint's chain, outermost first."""
        own: Sequence[Element] = self.options.elements()
        return own

    def mechanisms(self, place: str) -> Sequence[MechanismPlugin]:
        """Return what it agrees to where it ends a path, in a chain of its own.

        ``place``: the URL of the namespace in which its wires end.
        """
        return [Kernel(inode_url=place), Noop()]

    def offers(self) -> Mapping[str, Mapping[str, str]]:
        """Return the services that its options name, with the labels of each; nothing: the settings do."""
        return {}

    async def granted(self, connection: Connection) -> None:
        """Look at a connection that is about to be granted, or refreshed; may change it.

        Raise :class:`nsmesh.core.errors.Refused` to say no; the client reads the sentence.
        """

    async def closed(self, connection: Connection) -> None:
        """Hear that a connection has ended."""

    async def reload(self) -> None:
        """Read changed files again (SIGHUP)."""

    async def status(self) -> dict[str, list[dict[str, Any]]]:
        """Return tables for ``nsm describe endpoint``: rows of plain data by title. Raises MeshError."""
        return {}


class Hooks(Element):
    """Calls an endpoint's ``granted`` and ``closed``.

    After:  Begin, Ipam
    Close:  passes on, then calls ``closed``
    """

    after = ("Begin", "Ipam")

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then ask."""
        connection = await next.request(call, request)
        await self._endpoint.granted(connection)
        return connection

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then tell."""
        try:
            await next.close(call, connection)
        finally:
            await self._endpoint.closed(connection)


class IcmpResponder(Endpoint):
    """Gives addresses out; the kernel answers pings, or this process does where its wires are memif."""

    Options = IcmpResponderOptions

    def elements(self) -> Sequence[Element]:
        """Return address management, and what answers at memif sockets."""
        own = self.options.elements()
        return (*own, AnswerMemif(folder_of(self.name))) if self.options.mechanism == "memif" else own

    def mechanisms(self, place: str) -> Sequence[MechanismPlugin]:
        """Return the mechanism that its options name, and NOOP."""
        if self.options.mechanism == "memif":
            return [Memif(folder=str(folder_of(self.name))), Noop()]
        return super().mechanisms(place)


class FirewallEndpoint(Endpoint):
    """Lets pass what its rules allow, between the wire it serves and the wire it asks for."""

    Options = FirewallOptions
    passthrough = True

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self._firewall = Firewall(options.ruleset())

    def elements(self) -> Sequence[Element]:
        """Return the firewall."""
        return (self._firewall,)

    async def reload(self) -> None:
        """Read the rules again."""
        await self._firewall.reload(self.options.ruleset())

    async def status(self) -> dict[str, list[dict[str, Any]]]:
        """Return what each rule has counted, by connection."""
        found = await self._firewall.counters()
        rules = [
            {"connection": wire, "rule": one.name, "packets": one.packets, "bytes": one.bytes}
            for wire, counted in found.items()
            for one in counted
        ]
        return {"rules": rules}


class VpnGatewayEndpoint(Endpoint):
    """Leads what is behind a WireGuard tunnel, and nothing else, to its clients."""

    Options = VpnGatewayOptions

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self._gateway: VpnGateway | None = None

    def elements(self) -> Sequence[Element]:
        """Return address management and the gateway."""
        self._gateway = VpnGateway(self.options.tunnel())
        return (*self.options.elements(), self._gateway)

    async def status(self) -> dict[str, list[dict[str, Any]]]:
        """Return how the peers of the tunnel are."""
        found = await self._gateway.peers() if self._gateway is not None else []
        return {"peers": [dataclasses.asdict(peer) for peer in found]}


class RemoteVlanEndpoint(Endpoint):
    """Says which VLAN outside of the mesh its clients are to be put onto; has no interface itself."""

    Options = RemoteVlanOptions
    by_manager = False

    def mechanisms(self, place: str) -> Sequence[MechanismPlugin]:  # noqa: ARG002 - no wire ends there
        """Return the mechanism VLAN alone."""
        return [VlanGiver(self.options.tags)]

    def offers(self) -> Mapping[str, Mapping[str, str]]:
        """Return the VLANs, as services."""
        offered: Mapping[str, Mapping[str, str]] = self.options.offers
        return offered

    async def status(self) -> dict[str, list[dict[str, Any]]]:
        """Return which VLAN each service is."""
        return listed(self.options)


TYPES: dict[str, type[Endpoint]] = {
    "icmp-responder": IcmpResponder,
    "firewall": FirewallEndpoint,
    "vpn-gateway": VpnGatewayEndpoint,
    "remote-vlan": RemoteVlanEndpoint,
}


def find_type(kind: str) -> type[Endpoint]:
    """Return the class of a type: a known word, ``package.module:Class`` or ``path/file.py:Class``.

    Raises NotFound or Invalid, saying what is missing.
    """
    if kind in TYPES:
        return TYPES[kind]
    place, colon, name = kind.partition(":")
    if not colon:
        near = nearest(kind, TYPES)
        raise NotFound(
            f"there is no endpoint type {kind}",
            remedy=f"did you mean {near}?" if near else f"known: {', '.join(TYPES)}, or MODULE:CLASS",
        )
    module = _from_file(Path(place)) if place.endswith(".py") else _from_name(place)
    found = getattr(module, name, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if _is_endpoint(value)]
        raise NotFound(f"{place} has no class {name}", remedy=f"it has: {', '.join(classes) or 'none'}")
    if not _is_endpoint(found):
        raise Invalid(f"{kind} is no endpoint", remedy="derive it from nsmesh.endpoints.base.Endpoint")
    endpoint: type[Endpoint] = found
    return endpoint


def _is_endpoint(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Endpoint) and value is not Endpoint


def _from_name(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotFound(
            f"the module {name} cannot be imported: {error}",
            remedy="install it, or name a file: ./x.py:Class",
        ) from error


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"nsm_endpoint_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise NotFound(f"there is no file {path}", remedy="the path is relative to the manifest's folder")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Invalid(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
