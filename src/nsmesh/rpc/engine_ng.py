"""HTTP/2 by libnghttp2, through ``ngh2``: the engine in daily use."""

from __future__ import annotations

from typing import Any

import ngh2

from nsmesh.rpc.engine import (
    CONNECTION_WINDOW,
    ENHANCE_YOUR_CALM,
    HARD_HEADERS,
    LAST_STREAM,
    LONGEST_FRAME,
    PROTOCOL_ERROR,
    Data,
    EngineError,
    Event,
    GoAway,
    HeaderList,
    Headers,
    Ping,
    Pong,
    Reset,
    Settings,
    Trailers,
    code_name,
    goaway_frame,
)
from nsmesh.rpc.limits import Limits

STREAMS_BEFORE_SETTINGS = 100
"""Streams that a client may open before it has heard how many the server allows."""

_GOODBYE = "GOAWAY: invalid last_stream_id"


class NgEngine:
    """See :class:`nsmesh.rpc.engine.Engine`."""

    def __init__(self, limits: Limits, *, client: bool) -> None:
        self._limits = limits
        self._client = client
        self._highest = 0
        self._told: set[int] = set()  # streams whose end needs no event: we ended them, or it was told
        resets = limits.resets
        self._connection = ngh2.Connection(
            ngh2.Role.CLIENT if client else ngh2.Role.SERVER,
            ngh2.Configuration(
                auto_window_update=False,
                peer_max_concurrent_streams=STREAMS_BEFORE_SETTINGS,
                max_send_header_block_length=limits.header_list * HARD_HEADERS,
                max_inbound_header_list_size=limits.header_list * HARD_HEADERS,
                max_continuations=limits.header_list * HARD_HEADERS // LONGEST_FRAME + 1,
                max_outbound_ack=max(1000, limits.pings),
                stream_reset_rate_limit=(resets * 2, resets),  # above ours, which says why it closes
            ),
        )
        self._ended = False

    def start(self) -> None:
        """Queue preface, settings and the connection's window."""
        limits = self._limits
        settings = {
            ngh2.Setting.INITIAL_WINDOW_SIZE: limits.window,
            ngh2.Setting.MAX_HEADER_LIST_SIZE: limits.header_list,
        }
        if self._client:
            settings[ngh2.Setting.ENABLE_PUSH] = 0
        else:
            settings[ngh2.Setting.MAX_CONCURRENT_STREAMS] = limits.streams
        self._connection.initiate_connection(settings)
        self._connection.set_local_window_size(CONNECTION_WINDOW)

    def feed(self, data: bytes) -> list[Event]:
        """Return what ``data`` means; raises EngineError."""
        connection = self._connection
        try:
            connection.receive_data(data)
        except ngh2.DenialOfServiceError as error:
            raise EngineError(str(error), goaway_frame(self._highest, ENHANCE_YOUR_CALM)) from error
        except ngh2.NGH2Error as error:
            if self._ended:
                return []
            raise EngineError(str(error), goaway_frame(self._highest, PROTOCOL_ERROR)) from error
        found: list[Event] = []
        event: Any  # which attributes it has, its type says
        for event in connection.events():
            kind = type(event)
            if kind is ngh2.DataReceived:
                found.append(Data(event.stream_id, event.data, event.end_stream))
            elif kind is ngh2.RequestReceived or kind is ngh2.ResponseReceived:
                self._highest = max(self._highest, event.stream_id)
                found.append(Headers(event.stream_id, event.headers, event.end_stream))
            elif kind is ngh2.TrailersReceived:
                found.append(Trailers(event.stream_id, event.headers))
            elif (other := self._rarer(kind, event)) is not None:
                found.append(other)
        return found

    def _rarer(self, kind: type, event: Any) -> Event | None:
        """Return what stands for the events that are not on the hot path."""
        if kind is ngh2.StreamClosed or kind is ngh2.StreamReset:
            return self._over(event, final=kind is ngh2.StreamClosed)
        if kind is ngh2.SettingsReceived:
            return Settings()
        if kind is ngh2.PingReceived:
            return Ping()
        if kind is ngh2.PingAcknowledged:
            return Pong(event.opaque_data)
        if kind is ngh2.GoAwayReceived:
            return GoAway(event.last_stream_id, event.error_code)
        if kind is ngh2.ConnectionClosed:
            self._ended = True  # after a GOAWAY and the last stream: what still comes means nothing
        return None

    def _over(self, event: Any, *, final: bool) -> Event | None:
        """Tell the end of a stream once: when the peer reset it, or when it broke a rule."""
        if event.stream_id in self._told:
            if final:
                self._told.discard(event.stream_id)
            return None
        if not final:
            self._told.add(event.stream_id)
            return Reset(event.stream_id, event.error_code)
        return Reset(event.stream_id, event.error_code) if event.error_code else None

    def take(self, amount: int) -> bytes:
        """Return what may go out now."""
        try:
            return self._connection.data_to_send(amount)
        except ngh2.NGH2Error:
            return b""

    def silent(self) -> bool:
        """Return whether the library wants to read alone."""
        connection = self._connection
        try:
            return connection.want_read and not connection.want_write
        except ngh2.NGH2Error:
            return False

    def over(self) -> str | None:
        """Return why the library takes and gives nothing any more, or None."""
        connection = self._connection
        try:
            if connection.want_read or connection.want_write:
                return None
        except ngh2.NGH2Error:  # it failed, and ``feed`` has said why
            return ""
        self._ended = True
        for event in connection.events():
            if type(event) is ngh2.ConnectionClosed and event.error_code:
                text = event.debug_data.decode("latin-1")
                # Clients of grpc-go say goodbye with the highest stream id, here taken for a fault.
                return "" if text == _GOODBYE else text or code_name(event.error_code)
        return ""

    def request(self, headers: HeaderList) -> int:
        """Open a stream; raises EngineError when the connection takes none."""
        try:
            return self._connection.send_request(headers)
        except ngh2.NGH2Error as error:
            raise EngineError(str(error)) from error

    def headers(self, stream: int, headers: HeaderList, *, ended: bool) -> None:
        """Answer a request."""
        try:
            self._connection.send_response(stream, headers, end_stream=ended)
        except ngh2.NGH2Error:
            return

    def data(self, stream: int, data: bytes, *, ended: bool) -> None:
        """Queue bytes of a stream."""
        try:
            self._connection.send_data(stream, data, end_stream=ended)
        except ngh2.NGH2Error:
            return

    def trailers(self, stream: int, headers: HeaderList) -> None:
        """End a stream after its bytes."""
        try:
            self._connection.send_trailers(stream, headers)
        except ngh2.NGH2Error:
            return

    def reset(self, stream: int, code: int) -> None:
        """Give a stream up."""
        try:
            self._connection.reset_stream(stream, code)
        except ngh2.NGH2Error:
            return
        self._told.add(stream)

    def consumed(self, stream: int, size: int) -> None:
        """Give the peer its credit back."""
        try:
            self._connection.acknowledge_received_data(size, stream)
        except (ngh2.NGH2Error, ValueError):
            return

    def queued(self, stream: int) -> int:
        """Return the bytes that wait on one stream."""
        return self._connection.queued_body_size(stream)

    def queued_in_all(self) -> int:
        """Return the bytes that wait on all streams."""
        return self._connection.queued_body_size()

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life."""
        try:
            self._connection.ping(payload)
        except ngh2.NGH2Error:
            return

    def goaway(self, last: int, code: int) -> None:
        """Take no more streams."""
        try:
            if last == LAST_STREAM:
                self._connection.send_shutdown_notice()
            else:
                self._connection.send_goaway(code)
        except ngh2.NGH2Error:
            return
