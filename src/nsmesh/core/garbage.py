"""Garbage collection for a process that lives long and keeps thousands of small objects per wire."""

from __future__ import annotations

import gc

YOUNG = 10_000
"""Objects that are made and kept before the young ones are looked through (Python's default: 700)."""


def settle() -> None:
    """Tell the collector that start-up is over: what is there now stays. Call it once, when all is imported.

    Python's defaults look through everything that lives again and again while connections are made; that is
    some four per cent of a Request's processor time. Nearly all garbage here goes by reference count; the
    collector is for the few cycles (tasks, tracebacks).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
