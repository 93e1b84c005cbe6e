"""A forwarder for managers whose recording shows none: it answers so that the recorded answer comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty

from nsmesh import rpc
from nsmesh.core.errors import Unavailable
from nsmesh.model import methods
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest

if TYPE_CHECKING:
    from interop_player import Player

FORWARDER = "forwarder"


class NextHop:
    """Stands behind our manager. What it is asked is not compared: nothing of it was recorded."""

    def __init__(self, player: Player) -> None:
        self._player = player

    async def unary(self, call: rpc.ServerCall, body: bytes) -> bytes:
        """Answer a Request with the tail of the recorded answer; a Close with nothing."""
        if call.path != methods.REQUEST:
            return Empty().SerializeToString()
        request = NetworkServiceRequest.FromString(body)
        connection = request.connection
        recorded = self._recorded()
        own = connection.path.index
        if own < len(recorded.path.path_segments):
            self._player.b.ids[recorded.path.path_segments[own].id] = connection.id
        for path in self._player.b.paths_of(recorded):
            call.send_fd(str(path))
        bare = copy_of(recorded)
        del bare.path.path_segments[: own + 1]  # their tokens are ours to make
        answer: Connection = self._player.b.live(bare)
        answer.id = connection.id
        tail = list(answer.path.path_segments)
        answer.path.CopyFrom(connection.path)
        del answer.path.path_segments[own + 1 :]
        answer.path.path_segments.extend(tail)
        return answer.SerializeToString()

    def _recorded(self) -> Connection:
        waiting = [
            asked
            for asked in self._player.asked
            if asked.call.method == methods.REQUEST and asked.begun and not asked.done.is_set()
        ]
        if not waiting or waiting[-1].call.status != 0:
            raise Unavailable("this Request was refused in the recording")
        answer: Connection = waiting[-1].call.answers[0].message  # type: ignore[assignment]
        return answer
