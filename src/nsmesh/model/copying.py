"""Copies of messages: who gives a message away and looks at it again, gives a copy away."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def copy_of(message: M) -> M:
    """Return a deep copy."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
