"""Who owns background work: a scope. What a scope started ends with it; no loose tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, Self

import structlog

from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Unavailable
from nsmesh.core.logging import of_nobody

log = structlog.get_logger()


class Scope:
    """Owns tasks and timers. Entered by ``async with``; on leaving it cancels and awaits all of them.

    A task that fails is logged and ends alone: one connection's trouble is nobody else's.
    """

    def __init__(self, name: str = "scope", clock: Clock | None = None) -> None:
        self.name = name
        self.clock: Clock = clock or SystemClock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[Timer] = set()
        self._entered = 0

    @property
    def running(self) -> bool:
        """Whether the scope is entered."""
        return self._entered > 0

    @property
    def tasks(self) -> int:
        """How many tasks live now."""
        return len(self._tasks)

    @property
    def timers(self) -> int:
        """How many timers are pending now."""
        return len(self._timers)

    def spawn(
        self, work: Coroutine[Any, Any, None], *, name: str, inherit: bool = False
    ) -> asyncio.Task[None]:
        """Start ``work``; raises RuntimeError outside ``async with``.

        ``inherit``: it is part of the call that starts it, and its log lines name that call's peer.
        """
        if not self.running:
            work.close()
            raise RuntimeError(f"scope {self.name} is not running: enter it before starting {name}")
        context = copy_context() if inherit else of_nobody()
        task = asyncio.get_running_loop().create_task(self._guard(work, name), name=name, context=context)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            work.close()  # cancelled before its first step, it never awaited it

        task.add_done_callback(ended)
        return task

    def own(self, task: asyncio.Task[None]) -> None:
        """Let a task that lets no error out end with the scope, as those that it starts itself do."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("background task failed", task=name, scope=self.name)

    async def finish(self, work: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> None:
        """Do ``work`` to its end, even when the caller is cancelled meanwhile; its errors are the caller's.

        Only the end of the scope cuts it short; raises Unavailable then. Outside ``async with`` it is done
        as it would be without a scope.
        """
        if not self.running:
            await work()
            return
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[None] = loop.create_future()
        task = self.spawn(_carry(work, outcome), name=name, inherit=True)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            ended: asyncio.Future[None] = loop.create_future()  # a shield would cost two more
            task.add_done_callback(partial(_tell, ended))
            try:
                await ended
            except asyncio.CancelledError as error:
                cancelled = error
        failed = outcome.exception() if outcome.done() else None
        if cancelled is not None:
            raise cancelled
        if failed is not None:
            raise failed
        if not outcome.done():
            raise Unavailable(f"{self.name} stopped before {name} was done")

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call ``call`` at loop time ``when`` (a time in the past means soon)."""
        if not self.running:
            raise RuntimeError(f"scope {self.name} is not running")
        return Timer(self, when, call)

    def after(self, delay: float, call: Callable[[], None]) -> Timer:
        """Call ``call`` after ``delay`` seconds of loop time."""
        return self.at(asyncio.get_running_loop().time() + max(delay, 0.0), call)

    async def __aenter__(self) -> Self:
        self._entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._entered -= 1
        if self._entered:
            return
        for timer in tuple(self._timers):
            timer.cancel()
        self._timers.clear()
        current = asyncio.current_task()
        cancelled: asyncio.CancelledError | None = None
        while pending := [task for task in self._tasks if task is not current]:
            for task in pending:
                task.cancel()
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError as error:
                cancelled = error  # whoever hurries us still gets a scope with nothing left in it
            self._tasks.difference_update([task for task in pending if task.done()])
        if cancelled is not None:
            raise cancelled


def _tell(ended: asyncio.Future[None], task: asyncio.Task[None]) -> None:  # noqa: ARG001 - what tasks call
    if not ended.done():
        ended.set_result(None)


async def _carry(work: Callable[[], Coroutine[Any, Any, None]], outcome: asyncio.Future[None]) -> None:
    """Do ``work`` and put how it ended into ``outcome``, which stays open when it was cancelled."""
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - handed to the waiter
        outcome.set_exception(error)
    else:
        outcome.set_result(None)


class Timer:
    """One pending call; ``cancel`` may be called any number of times."""

    __slots__ = ("_handle", "_scope")

    def __init__(self, scope: Scope, when: float, call: Callable[[], None]) -> None:
        self._scope = scope

        def fire() -> None:
            scope._timers.discard(self)  # noqa: SLF001 - a timer is a part of its scope
            try:
                call()
            except Exception:
                log.exception("timer failed", scope=scope.name)

        self._handle = asyncio.get_running_loop().call_at(when, fire, context=of_nobody())
        scope._timers.add(self)  # noqa: SLF001 - a timer is a part of its scope

    @property
    def when(self) -> float:
        """Loop time at which it fires."""
        return self._handle.when()

    def cancel(self) -> None:
        """Take the call back."""
        self._handle.cancel()
        self._scope._timers.discard(self)  # noqa: SLF001 - a timer is a part of its scope
