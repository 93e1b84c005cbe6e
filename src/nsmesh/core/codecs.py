"""How values of a connection's state outlive their process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from nsmesh.core.call import Codec

M = TypeVar("M", bound=Message)


def json_codec(make: Callable[[Any], Any], take: Callable[[Any], Any] = lambda value: value) -> Codec[Any]:
    """Return a codec by way of JSON: ``take`` makes plain data of a value, ``make`` the value of that."""
    return Codec(
        lambda value: json.dumps(take(value), separators=(",", ":")).encode(),
        lambda body: make(json.loads(body)),
    )


def message_codec(kind: type[M]) -> Codec[M]:
    """Return the codec of a message, which is its wire form."""
    return Codec(lambda message: message.SerializeToString(), kind.FromString)


TEXT: Codec[str] = Codec(str.encode, bytes.decode)
