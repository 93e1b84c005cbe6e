"""The port between those who know data paths and those who tell clients of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple


class PathEvent(NamedTuple):
    """The data paths of some connections are dead, or live again.

    ``connections``: ids of our own path segments; whoever watches a neighbour as a whole names all that go by
    way of it. ``why``: a piece of a sentence, for logs.
    """

    connections: Collection[str]
    up: bool
    why: str


Observer = Callable[[PathEvent], None]
"""Takes events in the event loop; must not wait."""
