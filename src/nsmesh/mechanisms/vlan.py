"""VLAN: the wire ends in a VLAN outside of the mesh, behind something of the node that the client is on.

The endpoint says which VLAN, and has no interface itself. It may be anywhere: no frame goes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nsmesh.core.errors import Invalid
from nsmesh.core.tunnelling import number
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import PAYLOADS, REMOTE, VLAN, Connection, Mechanism
from nsmesh.model.tunnels import OutsidePort
from nsmesh.model.vlan import MOST, VIA, VLAN_ID
from nsmesh.model.wiring import Side

Way = Callable[[int], OutsidePort]
"""Returns the end of a wire onto the VLAN with a tag, its MTU known; may raise what keeps it from that."""


class Vlan:
    """The forwarder's side: it asks for a VLAN and puts the client onto it.

    ``ways`` has what leads to VLANs from this node, by the ``via`` that it serves.
    """

    type = VLAN
    cls = REMOTE
    payloads: tuple[str, ...] = PAYLOADS

    def __init__(self, ways: Mapping[str, Way]) -> None:
        self._ways = dict(ways)

    def offer(self, connection: Connection) -> Mechanism:  # noqa: ARG002 - the face of a mechanism
        """Return REMOTE VLAN: all that it needs is for the endpoint to say."""
        return Mechanism(cls=REMOTE, type=VLAN)

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:  # noqa: ARG002 - likewise
        """Raise Invalid: no wire comes in from a VLAN."""
        raise Invalid(
            "a VLAN is asked of an endpoint, and this is a forwarder",
            remedy="register the endpoint at the registry, so that the client's forwarder asks it itself",
        )

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> OutsidePort:  # noqa: ARG002 - likewise
        """Return the VLAN that the endpoint named, on what its label ``via`` means here."""
        via = connection.labels.get(VIA, "")
        way = self._ways.get(via)
        endpoint = connection.network_service_endpoint_name or connection.network_service
        if way is None:
            raise Invalid(
                f"endpoint {endpoint} gives out a VLAN via {via or 'nothing'}, and no interface or "
                "bridge of this node is that",
                remedy=f"the device selector file of this forwarder has {', '.join(self._ways) or 'none'}",
            )
        return way(number(mechanism, VLAN_ID, 0, MOST))

    def describe(self, mechanism: Mechanism) -> str:
        """Return ``VLAN/`` and the tag."""
        return f"{VLAN}/{mechanism.parameters.get(VLAN_ID, '')}"

    def largest(self, mechanism: Mechanism) -> int:  # noqa: ARG002 - likewise
        """Return 0: before the endpoint has named the way, nobody knows."""
        return 0

    def introduce(self, mechanism: Mechanism, side: Side, mac: str) -> None:
        """Do nothing: neighbours on a VLAN find each other."""

    def another(self, mechanism: Mechanism, side: Side = Side.CLIENT) -> Mechanism:  # noqa: ARG002 - likewise
        """Return the same: any number of wires share a VLAN."""
        return copy_of(mechanism)


class VlanGiver:
    """The endpoint's side: ``tags`` has the VLAN of each network service."""

    type = VLAN
    cls = REMOTE
    payloads: tuple[str, ...] = PAYLOADS

    def __init__(self, tags: Mapping[str, int]) -> None:
        self._tags = dict(tags)

    def offer(self, connection: Connection) -> None:
        """Return None: it asks for nothing."""

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with the tag of the connection's service."""
        tag = self._tags.get(connection.network_service)
        if tag is None:
            raise Invalid(
                f"network service {connection.network_service} is no VLAN here",
                remedy=f"there are {', '.join(self._tags) or 'none'}",
            )
        made = copy_of(offered)
        made.parameters[VLAN_ID] = str(tag)
        return made

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> None:
        """Return None: no interface."""

    def describe(self, mechanism: Mechanism) -> str:
        """Return ``VLAN/`` and the tag."""
        return f"{VLAN}/{mechanism.parameters.get(VLAN_ID, '')}"
