"""What a mechanism is to the elements: negotiation, and a pure mapping to a port."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from nsmesh.model.messages import Connection, Mechanism
from nsmesh.model.wire import Port
from nsmesh.model.wiring import Side

SERVER_INTERFACE = "server_interface"
"""Path segment metric: the interface of the wire on the side of whoever asks."""
CLIENT_INTERFACE = "client_interface"
"""Path segment metric: the interface of the wire on the side of whoever is asked."""


class MechanismPlugin(Protocol):
    """One mechanism. Pure: nothing here touches the machine. Raises :class:`nsmesh.core.errors.Invalid`."""

    type: str
    cls: str

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


def by_type(plugins: Iterable[MechanismPlugin]) -> Mapping[str, MechanismPlugin]:
    """Return the plug-ins by the type that they speak for, in their order."""
    return {plugin.type: plugin for plugin in plugins}


def note_interface(connection: Connection, metric: str, value: str) -> None:
    """Write a metric into the segment that the path's index points at, where there is one."""
    segments = connection.path.path_segments
    if connection.path.index < len(segments):
        segments[connection.path.index].metrics[metric] = value
