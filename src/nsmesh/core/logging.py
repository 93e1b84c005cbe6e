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


def set_level(name: str) -> None:
    """Choose the lowest level that is written; unknown names mean INFO."""
    # what is below the level is dropped before the line is put together: it costs next to nothing
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_severity(name)))


def _severity(name: str) -> int:
    return LEVELS.get(name.upper(), logging.INFO)


def configure(*, role: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Set logging up for this process: every line carries ``role``, a time and a level."""
    out = stream or sys.stderr
    lines = structlog.PrintLogger(out)
    terminal = out.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=True)
        if terminal
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_severity(level)),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,  # or the level that a logger was first used at would stay
    )
    structlog.contextvars.bind_contextvars(role=role)
