"""Metrics and traces of a process, as its settings say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import structlog

from nsmesh.core.observing import installed

log = structlog.get_logger()


class Wishes(Protocol):
    """The settings that are about telemetry."""

    @property
    def prometheus(self) -> bool:
        """Whether metrics are served."""
        ...

    @property
    def prometheus_listen_on(self) -> str:
        """Where."""
        ...

    @property
    def telemetry(self) -> bool:
        """Whether traces are sent."""
        ...

    @property
    def open_telemetry_endpoint(self) -> str:
        """Where to."""
        ...


@asynccontextmanager
async def telemetry(wishes: Wishes, name: str, folder: Path | None = None) -> AsyncIterator[None]:
    """Serve metrics and send traces while the block runs, where that is wished for.

    Enter it before anything that is to be seen is made. ``folder``: where other processes of ours serve
    theirs. Raises Invalid for an address that is none.
    """
    async with AsyncExitStack() as stack:
        if wishes.telemetry:
            from nsmesh.telemetry.tracing import tracing  # noqa: PLC0415 - an extra, for those who have it

            stack.enter_context(tracing(name, wishes.open_telemetry_endpoint))
        if wishes.prometheus:
            from nsmesh.telemetry.exposition import exposed  # noqa: PLC0415 - only where metrics are on
            from nsmesh.telemetry.timing import Timing  # noqa: PLC0415 - likewise

            stack.enter_context(installed(Timing()))
            await stack.enter_async_context(exposed(wishes.prometheus_listen_on, name, folder))
        yield
