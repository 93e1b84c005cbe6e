"""HTTP/2 by the pure-Python ``h2``: slower, needs no compiler, and proves the other engine right."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from nsmesh.rpc.engine import (
    CONNECTION_WINDOW,
    ENHANCE_YOUR_CALM,
    HARD_HEADERS,
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
    goaway_frame,
)
from nsmesh.rpc.h2_frames import Splitter
from nsmesh.rpc.limits import Limits

DEFAULT_WINDOW = 65535
"""What every connection begins with, bytes."""


class _Piece(NamedTuple):
    """Something that waits on a stream: bytes, or the trailers behind them."""

    data: bytes
    trailers: HeaderList | None
    ended: bool


class H2Engine:
    """See :class:`nsmesh.rpc.engine.Engine`."""

    def __init__(self, limits: Limits, *, client: bool) -> None:
        self._limits = limits
        self._client = client
        self._out = bytearray()
        self._splitter = Splitter(preface=not client)
        self._next_id = 1
        self._highest = 0
        self._waiting: deque[tuple[int, HeaderList]] = deque()  # requests that the peer's limit holds back
        self._pieces: dict[int, deque[_Piece]] = {}
        self._sizes: dict[int, int] = {}
        self._queued = 0  # the sum of those
        self._connection = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )

    def start(self) -> None:
        """Queue preface, settings and the connection's window."""
        code = h2.settings.SettingCodes
        limits = self._limits
        values = {
            code.INITIAL_WINDOW_SIZE: limits.window,
            code.MAX_HEADER_LIST_SIZE: limits.header_list,
            code.ENABLE_PUSH: 0,
        }
        if not self._client:
            values[code.MAX_CONCURRENT_STREAMS] = limits.streams
        # A later update() would only take effect with the peer's acknowledgement, and never be sent.
        self._connection.local_settings = h2.settings.Settings(client=self._client, initial_values=values)
        self._connection.initiate_connection()
        self._connection.decoder.max_header_list_size = limits.header_list * HARD_HEADERS
        self._connection.increment_flow_control_window(CONNECTION_WINDOW - DEFAULT_WINDOW)

    def feed(self, data: bytes) -> list[Event]:
        """Return what ``data`` means; raises EngineError."""
        found: list[Event] = []
        for piece in self._splitter.split(data):
            if isinstance(piece, GoAway):
                found.append(piece)
                continue
            try:
                events = self._connection.receive_data(piece)
            except h2.exceptions.DenialOfServiceError as error:
                raise EngineError(str(error), goaway_frame(self._highest, ENHANCE_YOUR_CALM)) from error
            except (h2.exceptions.H2Error, ValueError) as error:
                farewell = goaway_frame(self._highest, getattr(error, "error_code", PROTOCOL_ERROR))
                raise EngineError(str(error), farewell) from error
            for event in events:
                self._translate(event, found)
        return found

    def _translate(self, event: Any, found: list[Event]) -> None:
        kind = type(event)
        if kind is h2.events.DataReceived:
            padding = event.flow_controlled_length - len(event.data)
            if padding:
                self.consumed(event.stream_id, padding)
            found.append(Data(event.stream_id, bytes(event.data), event.stream_ended is not None))
        elif kind is h2.events.RequestReceived or kind is h2.events.ResponseReceived:
            self._highest = max(self._highest, event.stream_id)
            found.append(Headers(event.stream_id, tuple(event.headers), event.stream_ended is not None))
        elif kind is h2.events.TrailersReceived:
            found.append(Trailers(event.stream_id, tuple(event.headers)))
        elif kind is h2.events.StreamReset:
            self._forget(event.stream_id)
            found.append(Reset(event.stream_id, int(event.error_code)))
        else:
            self._translate_rarer(kind, event, found)

    def _translate_rarer(self, kind: type, event: Any, found: list[Event]) -> None:
        if kind is h2.events.PingReceived:
            found.append(Ping())
        elif kind is h2.events.PingAckReceived:
            found.append(Pong(event.ping_data))
        elif kind is h2.events.RemoteSettingsChanged:
            found.append(Settings())
            self._pump()
        elif kind is h2.events.WindowUpdated:
            self._pump()
        elif kind is h2.events.StreamEnded and self._client:
            self._open_waiting()

    def take(self, amount: int) -> bytes:
        """Return what may go out now."""
        if not self._out:
            return self._connection.data_to_send(amount)
        self._out += self._connection.data_to_send()
        taken = bytes(self._out[:amount])
        del self._out[:amount]
        return taken

    def silent(self) -> bool:
        """Return False: this library does not say."""
        return False

    def over(self) -> str | None:
        """Return None: this library says its end by an error."""
        return None

    def request(self, headers: HeaderList) -> int:
        """Open a stream; raises EngineError when the connection takes none."""
        stream = self._next_id
        self._next_id += 2
        self._waiting.append((stream, headers))
        self._open_waiting()
        return stream

    def _open_waiting(self) -> None:
        """Send the requests that the peer's limit allows, in their order."""
        connection = self._connection
        while self._waiting:
            if connection.open_outbound_streams >= connection.remote_settings.max_concurrent_streams:
                return
            stream, headers = self._waiting.popleft()
            try:
                connection.send_headers(stream, headers)
            except h2.exceptions.H2Error as error:
                raise EngineError(str(error)) from error
            if stream in self._pieces:
                self._pump_stream(stream)

    def headers(self, stream: int, headers: HeaderList, *, ended: bool) -> None:
        """Answer a request."""
        try:
            self._connection.send_headers(stream, headers, end_stream=ended)
        except h2.exceptions.H2Error:
            return

    def data(self, stream: int, data: bytes, *, ended: bool) -> None:
        """Queue bytes of a stream."""
        self._queue(stream, _Piece(data, None, ended))

    def trailers(self, stream: int, headers: HeaderList) -> None:
        """End a stream after its bytes."""
        self._queue(stream, _Piece(b"", headers, ended=True))

    def _queue(self, stream: int, piece: _Piece) -> None:
        self._pieces.setdefault(stream, deque()).append(piece)
        self._sizes[stream] = self._sizes.get(stream, 0) + len(piece.data)
        self._queued += len(piece.data)
        if not self._waiting or all(stream != waiting for waiting, _ in self._waiting):
            self._pump_stream(stream)

    def _pump(self) -> None:
        """Send what the windows allow now, on all streams."""
        self._open_waiting()
        held = {stream for stream, _ in self._waiting}
        for stream in list(self._pieces):
            if stream not in held:
                self._pump_stream(stream)

    def _pump_stream(self, stream: int) -> None:
        pieces = self._pieces[stream]
        try:
            while pieces:
                rest = self._send(stream, pieces[0])
                if rest is not None:
                    pieces[0] = rest
                    return
                pieces.popleft()
        except h2.exceptions.H2Error:
            pass  # it ended meanwhile, and its event says so
        self._forget(stream)

    def _send(self, stream: int, piece: _Piece) -> _Piece | None:
        """Send of ``piece`` what the window allows; return what is left, or None."""
        connection = self._connection
        if piece.trailers is not None:
            connection.send_headers(stream, piece.trailers, end_stream=True)
            return None
        view = memoryview(piece.data)
        while True:
            room = min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size)
            size = min(len(view), room)
            if size <= 0 < len(view):
                return _Piece(bytes(view), None, piece.ended)
            last = size == len(view)
            if size or piece.ended:
                connection.send_data(stream, bytes(view[:size]), end_stream=piece.ended and last)
            self._sizes[stream] -= size
            self._queued -= size
            if last:
                return None
            view = view[size:]

    def _forget(self, stream: int) -> None:
        self._pieces.pop(stream, None)
        self._queued -= self._sizes.pop(stream, 0)

    def reset(self, stream: int, code: int) -> None:
        """Give a stream up."""
        self._forget(stream)
        for position, (waiting, _) in enumerate(self._waiting):
            if waiting == stream:
                del self._waiting[position]
                return
        try:
            self._connection.reset_stream(stream, code)
        except h2.exceptions.H2Error:
            return
        if self._client:
            self._open_waiting()

    def consumed(self, stream: int, size: int) -> None:
        """Give the peer its credit back."""
        try:
            self._connection.acknowledge_received_data(size, stream)
        except (h2.exceptions.H2Error, ValueError):
            return

    def queued(self, stream: int) -> int:
        """Return the bytes that wait on one stream."""
        return self._sizes.get(stream, 0)

    def queued_in_all(self) -> int:
        """Return the bytes that wait on all streams."""
        return self._queued

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life."""
        try:
            self._connection.ping(payload)
        except h2.exceptions.H2Error:
            return

    def goaway(self, last: int, code: int) -> None:
        """Take no more streams. Not through ``h2``, which would end those that run."""
        self._out += self._connection.data_to_send()
        self._out += goaway_frame(min(last, max(last, self._highest)), code)
