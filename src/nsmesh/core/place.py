"""Where a connection lives: who was asked for it, and what has to be said where he may not be the same."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from nsmesh.core.call import Call, Codec, Key
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError, Unanswered
from nsmesh.core.life import LIFE
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import after_restart
from nsmesh.model.messages import Connection

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection lives: the target as it was given, so that a moved one is noticed."""

    target: Handler | str


PLACE: Key[Place] = Key(
    "place",
    Codec(
        lambda place: place.target.encode() if isinstance(place.target, str) else None,
        lambda body: Place(after_restart(body.decode())),
    ),
)


def is_taken_over(call: Call, place: Place | None) -> bool:
    """Whether an earlier process of ours was granted it, and no answer has come to this one."""
    life = call.state.get(LIFE)
    return place is None and life is not None and life.up


def name_of(target: Handler | str) -> str:
    """Return what a target is called in the log."""
    return target if isinstance(target, str) else getattr(target, "name", type(target).__name__)


async def take_back(call: Call, connection: Connection, next: Handler) -> None:
    """Close what a first Request, cut off before its answer, may have made, before it is made again.

    Whoever answers there now may have lost what his predecessor knew of it. What he refuses is left alone;
    raises Unanswered where this is cut off as well.
    """
    left = call.remaining()
    try:
        await next.close(call if left is None else call.within(left / 2), copy_of(connection))
    except Unanswered:
        raise
    except MeshError as error:
        log.info("what was cut off is not closed yet", connection=connection.id, error=str(error))
