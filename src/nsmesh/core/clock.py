"""Time, as a port: the wall clock of tokens and expiries, and the loop's clock of deadlines."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What elements ask for the time."""

    def now(self) -> float:
        """Return wall time, seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return the running loop's time in seconds; deadlines and timers are counted in it."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return ``time.time()``."""
        return time.time()

    def monotonic(self) -> float:
        """Return the running loop's time."""
        return asyncio.get_running_loop().time()
