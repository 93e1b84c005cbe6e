"""NOOP: a connection without an interface; the two sides find each other by other means."""

from __future__ import annotations

from nsmesh.model.copying import copy_of
from nsmesh.model.messages import LOCAL, NOOP, PAYLOADS, Connection, Mechanism
from nsmesh.model.wiring import Side


class Noop:
    """Negotiates that nothing shall be wired."""

    type = NOOP
    cls = LOCAL
    payloads: tuple[str, ...] = PAYLOADS

    def offer(self, connection: Connection) -> Mechanism:  # noqa: ARG002 - the face of a mechanism
        """Return LOCAL NOOP."""
        return Mechanism(cls=LOCAL, type=NOOP)

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:  # noqa: ARG002 - likewise
        """Return ``offered`` as it is."""
        return copy_of(offered)

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> None:
        """Return None: no interface."""

    def describe(self, mechanism: Mechanism) -> str:  # noqa: ARG002 - likewise
        """Return ``NOOP``."""
        return NOOP
