"""Logs through structlog: one line a fact on a terminal, JSON otherwise."""

from __future__ import annotations

import logging
import sys
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

_level = logging.INFO


def set_level(name: str) -> None:
    """Choose the lowest level that is written; unknown names mean INFO."""
    global _level  # noqa: PLW0603 - one process, one level, changed by signals
    _level = LEVELS.get(name.upper(), logging.INFO)


def _drop_below(_: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    severity = LEVELS.get(method.upper(), logging.ERROR if method == "exception" else logging.INFO)
    if severity < _level:
        raise structlog.DropEvent
    return event


def configure(*, role: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Set logging up for this process: every line carries ``role``, a time and a level."""
    out = stream or sys.stderr
    set_level(level)
    terminal = out.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=True)
        if terminal
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            _drop_below,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.BoundLogger,
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(role=role)
