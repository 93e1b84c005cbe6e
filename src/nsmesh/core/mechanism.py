"""What a mechanism is to the elements: negotiation, and a pure mapping to a port."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from nsmesh.core.call import Key
from nsmesh.core.codecs import TEXT, json_codec
from nsmesh.model.messages import ETHERNET, IP, PAYLOADS, REMOTE, Connection, ConnectionContext, Mechanism
from nsmesh.model.wire import Port
from nsmesh.model.wiring import Side

SERVER_INTERFACE = "server_interface"
"""Path segment metric: the interface of the wire on the side of whoever asks."""
CLIENT_INTERFACE = "client_interface"
"""Path segment metric: the interface of the wire on the side of whoever is asked."""
NEAR_MAC: Key[str] = Key("near-mac", TEXT)
"""In ``call.state`` of a forwarder: the MAC of the client's interface, for the next forwarder; empty: any."""

UPSTREAM: Key[str] = Key("upstream-mechanism", TEXT)
"""In ``call.state`` of a server: the type of the mechanism that whoever asked was given."""
REFUSED: Key[frozenset[str]] = Key("refused-mechanisms", json_codec(frozenset, sorted))
"""In ``call.state`` of a forwarder: types that its kernel would not make for this connection."""


class MechanismPlugin(Protocol):
    """One mechanism. Pure: nothing here touches the machine. Raises :class:`nsmesh.core.errors.Invalid`."""

    type: str
    cls: str
    payloads: tuple[str, ...]
    """What a wire of this mechanism can carry: see :func:`carries`."""

    def offer(self, connection: Connection) -> Mechanism | None:
        """Return the preference to offer to the next hop, or None where it does not fit the connection."""
        ...

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` as it is agreed to, with this side's parameters filled in.

        Accepting what was accepted before gives the same again.
        """
        ...

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> Port | None:
        """Return the end of the wire on ``side``, or None where there is no interface.

        May also raise :class:`nsmesh.model.wiring.WiringError` for what the connection's context says.
        """
        ...

    def describe(self, mechanism: Mechanism) -> str:
        """Return the mechanism in short, as in path segment metrics: ``KERNEL/nsm-1``."""
        ...


@runtime_checkable
class TunnelPlugin(MechanismPlugin, Protocol):
    """A mechanism of cls REMOTE: two forwarders agree on a tunnel between their nodes."""

    def largest(self, mechanism: Mechanism) -> int:
        """Return the largest MTU that fits through, in bytes; 0 leaves it open."""
        ...

    def introduce(self, mechanism: Mechanism, side: Side, mac: str) -> None:
        """Tell the other forwarder the MAC of the interface on ``side``; an empty one takes it back."""
        ...

    def another(self, mechanism: Mechanism, side: Side = Side.CLIENT) -> Mechanism:
        """Return what was offered or agreed with another tunnel in place of one that is taken.

        ``side`` is where this node stands: CLIENT where it asks, ENDPOINT where it answers.
        """
        ...


@runtime_checkable
class HandingPlugin(MechanismPlugin, Protocol):
    """A mechanism whose two users may meet at one socket, which the endpoint's side hands to the client."""

    hands_on: bool
    """Whether this is all that is done here: then it is offered only where the client has it as well."""

    def hand_on(self, client: Mechanism, endpoint: Mechanism) -> bool:
        """Give the client's mechanism what leads to the endpoint's socket; return False where none does."""
        ...


def carries(plugin: MechanismPlugin, connection: Connection) -> bool:
    """Return whether a wire of a mechanism can carry a connection's payload.

    An empty one means IP, and one that has no name here goes where frames go.
    """
    payload = connection.payload or IP
    return (payload if payload in PAYLOADS else ETHERNET) in plugin.payloads


def tunnels(plugins: Iterable[MechanismPlugin]) -> Mapping[str, TunnelPlugin]:
    """Return those plug-ins that make wires between nodes, by type."""
    return {
        plugin.type: plugin for plugin in plugins if plugin.cls == REMOTE and isinstance(plugin, TunnelPlugin)
    }


def handing(plugins: Iterable[MechanismPlugin]) -> Mapping[str, HandingPlugin]:
    """Return those plug-ins whose two users may meet at one socket, by type.

    A chain asks once, when it is made: whether an object fits a protocol takes Python 90 us to find out.
    """
    return {plugin.type: plugin for plugin in plugins if isinstance(plugin, HandingPlugin)}


def lower_mtu(context: ConnectionContext, largest: int) -> None:
    """Lower the MTU of a connection to what fits; 0 leaves it as it is."""
    if largest and (not context.MTU or largest < context.MTU):
        context.MTU = largest


def by_type(plugins: Iterable[MechanismPlugin]) -> Mapping[str, MechanismPlugin]:
    """Return the plug-ins by the type that they speak for, in their order."""
    return {plugin.type: plugin for plugin in plugins}


def note_interface(connection: Connection, metric: str, value: str) -> None:
    """Write a metric into the segment that the path's index points at, where there is one."""
    segments = connection.path.path_segments
    if connection.path.index < len(segments):
        segments[connection.path.index].metrics[metric] = value
