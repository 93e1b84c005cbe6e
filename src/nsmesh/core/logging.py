"""Logs through structlog: one line a fact on a terminal, JSON otherwise."""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from types import FrameType
from typing import Any, TextIO

import structlog

LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}


def set_level(name: str) -> None:
    """Choose the lowest level that is written; unknown names mean INFO."""
    # what is below the level is dropped before the line is put together: it costs next to nothing
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_severity(name)))


def _severity(name: str) -> int:
    return LEVELS.get(name.upper(), logging.INFO)


_ON_BEHALF = ("structlog.", "nsmesh.rpc.telling")
"""Modules that log for others: the element of their lines is whoever called them."""


def _add_element(logger: Any, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:  # noqa: ARG001 - the face of a processor
    """Say which module speaks, by its own name: ``element=timeout``. Runs only for lines that are written."""
    if "element" not in line:
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - what inspect does, without its cost
        while frame is not None:
            module: str = frame.f_globals.get("__name__", "")
            if not module.startswith(_ON_BEHALF):
                line["element"] = module.rpartition(".")[2]
                break
            frame = frame.f_back
    return line


_PEER: ContextVar[str | None] = ContextVar("peer", default=None)
_CONNECTION: ContextVar[str | None] = ContextVar("connection", default=None)


def _add_request(logger: Any, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:  # noqa: ARG001 - the face of a processor
    """Say whose call is served, and of which connection; what a line says itself comes first."""
    for variable in (_PEER, _CONNECTION):
        value = variable.get()
        if value is not None:
            line.setdefault(variable.name, value)
    return line


def of_request(peer: str) -> None:
    """Let every further line of this task say whose call it serves."""
    _PEER.set(peer)


class of_connection:  # noqa: N801 - used as a function is, without the cost of a generator
    """Let the lines of a block say of which connection they speak."""

    __slots__ = ("_id", "_token")

    def __init__(self, connection_id: str) -> None:
        self._id = connection_id

    def __enter__(self) -> None:
        self._token = _CONNECTION.set(self._id)

    def __exit__(self, *_: object) -> None:
        _CONNECTION.reset(self._token)


def of_nobody() -> Context:
    """Return the context of work that outlives the call that began it, and may serve others as well."""
    context = copy_context()
    if _PEER in context or _CONNECTION in context:
        context.run(_forget)
    return context


def _forget() -> None:
    _PEER.set(None)
    _CONNECTION.set(None)


class _Lines:
    """Writes lines; what cannot be written (a full disk, a reader that is gone) is lost, and harms nobody."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def msg(self, message: str) -> None:
        with self._lock, suppress(OSError):
            self._out.write(message + "\n")
            self._out.flush()

    log = debug = info = warning = warn = error = critical = fatal = failure = err = exception = msg


def configure(*, role: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Set logging up for this process: every line carries ``role``, ``element``, a time and a level.

    Lines that are written while a call is served carry its ``peer`` and ``connection`` as well. A line that
    cannot be written is lost, and no error of who says it.
    """
    out = stream or sys.stderr
    lines = _Lines(out)
    terminal = out.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=True)
        if terminal
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_request,
            structlog.processors.add_log_level,
            _add_element,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_severity(level)),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,  # or the level that a logger was first used at would stay
    )
    structlog.contextvars.bind_contextvars(role=role)
