"""How long to wait between tries: near the contract's interval at first, then longer, never all at once."""

from __future__ import annotations

import random
from collections.abc import Iterator

GROWTH = 1.5
JITTER = 0.25
"""A pause is up to this part longer than its turn says, so that those who failed together try apart."""


def pauses(first: float, longest: float) -> Iterator[float]:
    """Yield pauses in seconds without end: at least ``first``, growing to about ``longest``."""
    pause = first
    while True:
        yield pause * (1.0 + random.random() * JITTER)  # noqa: S311 - no secret
        pause = min(pause * GROWTH, longest)
