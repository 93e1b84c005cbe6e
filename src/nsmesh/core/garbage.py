"""Garbage collection for a process that lives long and keeps thousands of small objects per wire."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from contextlib import suppress

YOUNG = 10_000
"""Objects that are made and kept before the young ones are looked through (Python's default: 700)."""
PAUSE = 30.0
"""Seconds between two times that :func:`tidied` tidies up."""


def wait() -> None:
    """Let the collector wait until :func:`settle`: what a process makes while it starts stays, nearly all."""
    gc.disable()


def imported() -> None:
    """Tell the collector that what has been imported stays, whatever of it is garbage: next to nothing.

    To look through all of it once takes a tenth of the time that importing it took.
    """
    gc.freeze()


def settle() -> None:
    """Tell the collector that start-up is over: what is there now stays. Call it once, when all is imported.

    It takes as long as a fifth of a start, so whoever is waited for calls it afterwards.

    Python's defaults look through everything that lives again and again while connections are made; that is
    some four per cent of a Request's processor time. Nearly all garbage here goes by reference count; the
    collector is for the few cycles (tasks, tracebacks).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
    gc.enable()


def tidy() -> None:
    """Collect what refers to itself, and give the kernel back what malloc keeps of it; some milliseconds.

    A C library other than GNU's has nothing to give back by this name.
    """
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


async def tidied(pause: float = PAUSE) -> None:
    """Tidy up now and then, until cancelled: for a process that starts others and hears of their ends.

    Each end leaves cycles (tracebacks, connections, TLS) that the collector would come to after hours.
    """
    while True:
        await asyncio.sleep(pause)
        tidy()
