"""What became of a Request, for whoever tells people of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nsmesh.core.call import Peer
from nsmesh.core.errors import MeshError
from nsmesh.model.messages import Connection


@dataclass(frozen=True, slots=True)
class Outcome:
    """A Request that came to its end here.

    ``connection``: the answer; of a Request that failed what was asked for, with the interface name of its
    first mechanism preference. ``peer``: who asked, as the transport says. ``seconds``: how long it took.
    ``error``: why it failed; None where it did not.
    """

    connection: Connection
    peer: Peer
    seconds: float
    error: MeshError | None = None


Listener = Callable[[Outcome], None]
"""Takes outcomes in the event loop; must not wait."""
