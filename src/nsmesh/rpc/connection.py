"""What both sides of a connection share: wire below, engine inside, back-pressure and flood bounds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import structlog

from nsmesh.core.errors import Exhausted, Internal, MeshError, Unavailable
from nsmesh.rpc import engine as http2
from nsmesh.rpc import telling
from nsmesh.rpc.deadlines import Deadlines
from nsmesh.rpc.limits import Limits
from nsmesh.rpc.wire import Wire

log = structlog.get_logger()

FLUSH_AT_ONCE = 256 << 10
"""Bytes taken from the engine per write."""
GROWTH = 256 << 10
"""Bytes by which a connection's keep may grow before its owner hears of it."""


class Connection:
    """One HTTP/2 connection. Subclasses say what headers, data, trailers and resets mean."""

    wire: Wire
    together: float = math.inf
    """Seconds that what is queued waits for more of the same turn of the loop, so that one write does."""

    def __init__(self, engine: http2.Engine, limits: Limits) -> None:
        self.engine = engine
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self._open = False
        self._soon = False
        self._waits_since = 0.0
        self._held = 0
        self._reported = 0
        self._at_most = 0
        self._look_at = min(limits.held, GROWTH)
        self._producers: list[tuple[int, asyncio.Future[None]]] = []
        self._floods = Floods(limits)
        self.deadlines = Deadlines(self.loop)
        self._handlers: dict[type, Callable[[Any], None]] = {
            http2.Headers: self.on_headers,
            http2.Data: self.on_data,
            http2.Trailers: self.on_trailers,
            http2.Reset: self._on_reset,
            http2.GoAway: self.on_goaway,
            http2.Settings: self._on_settings,
            http2.Ping: self._on_ping,
            http2.Pong: self.on_pong,
        }

    def opened(self) -> None:
        """Open HTTP/2, now that the peer is known."""
        self._open = True
        self.engine.start()
        self.flush()

    def received(self, data: bytes) -> None:
        """Feed the engine and act on its events; what they cause goes out in one write."""
        try:
            events = self.engine.feed(data)
        except http2.EngineError as error:
            self._farewell(error)
            return
        handlers = self._handlers
        try:
            for event in events:
                if self.wire.dead:  # an event before this one ended it, and all calls: begin no others
                    return
                handlers[type(event)](event)
        except Exception:
            log.exception("a fault in the gRPC layer ends a connection", peer=self.wire.where)
            self.wire.abort(Internal(f"a fault of our own ended the connection to {self.wire.where}"))
            return
        if not self._soon and (self._producers or not self.engine.silent()):
            self.flush()

    def _farewell(self, error: http2.EngineError) -> None:
        self._pour()
        self.wire.write(error.farewell)
        self._broke(str(error))

    def _broke(self, fault: str) -> None:
        self._tell("a peer broke the protocol", reason=fault)
        where = self.wire.where
        self.wire.end(
            Unavailable(f"{where} broke the HTTP/2 protocol: {fault}", remedy="check that it is a gRPC peer")
        )

    def _tell(self, text: str, **values: object) -> None:
        wire = self.wire
        who = telling.name_of(wire.peer)
        telling.SHARED.warn(text, about=who, peer=who, where=wire.where, **values)

    def soon(self) -> None:
        """Flush at the end of this turn of the loop, once for all that was queued in it.

        Where a turn takes longer than ``together``, what waits goes out in its course.
        """
        if not self._soon:
            self._soon = True
            if self.together != math.inf:
                self._waits_since = self.loop.time()
            self.loop.call_soon(self.flush)
        elif self._open and self.together != math.inf:
            now = self.loop.time()
            if now - self._waits_since >= self.together:
                self._waits_since = now
                self._pour()

    def flush(self) -> None:
        """Write what may go out, as long as the socket takes it, and close when the engine is done."""
        self._soon = False
        if not self._open:  # TLS comes first
            return
        self._pour()
        if not self.wire.dead and (fault := self.engine.over()) is not None:
            self._over(fault)
        if self._producers:
            self._wake()

    def _pour(self) -> None:
        wire = self.wire
        while not wire.dead and wire.buffered < self.limits.write_buffer:
            out = self.engine.take(FLUSH_AT_ONCE)
            if not out:
                break
            wire.write(out)
            if len(out) < FLUSH_AT_ONCE:
                break

    def _over(self, fault: str) -> None:
        if fault:
            self._broke(fault)
        else:
            self.wire.close()

    def writable(self) -> None:
        """Go on after the socket took all that waited."""
        self.flush()

    async def drain(self, stream: int) -> None:
        """Wait while the stream, or the socket, has more waiting than its bound."""
        while not self._has_room(stream):
            future: asyncio.Future[None] = self.loop.create_future()
            self._producers.append((stream, future))
            self.soon()
            await future

    def _has_room(self, stream: int) -> bool:
        if self.wire.dead:
            return True
        if self.wire.buffered >= self.limits.write_buffer:
            return False
        return self.engine.queued(stream) < self.limits.stream_buffer

    def _wake(self) -> None:
        waiting = []
        for stream, future in self._producers:
            if future.done():
                continue
            if self._has_room(stream):
                future.set_result(None)
            else:
                waiting.append((stream, future))
        self._producers = waiting

    @property
    def kept(self) -> int:
        """Bytes that this connection makes us keep: what came and is not worked off."""
        return self._held

    def hold(self, size: int) -> None:
        """Count bytes that are kept here; raises Exhausted when they are too many together."""
        self._held += size
        if size > 0:
            self._at_most += size
            if self._at_most > self._look_at:
                self._look(0)

    def room(self, size: int) -> None:
        """Raise Exhausted where an answer of ``size`` bytes would be too much beside all that waits."""
        self._at_most += size
        if self._at_most > self._look_at:
            self._look(size)

    def _look(self, more: int) -> None:
        """Compare what is kept with what may be.

        To count it takes long, so that it is done when what was told since the last time may be too much.
        """
        kept = self._at_most = self.kept + more
        if kept > self.limits.held:
            raise Exhausted(
                f"the messages under way on one connection have {kept} bytes together",
                remedy="send less at once, and read what is answered",
            )
        if kept > self._reported + GROWTH:
            self._reported = kept
            self.grown()
            if self.wire.dead:
                raise Exhausted(f"the connection to {self.wire.where} has just been ended")
        elif kept < self._reported - GROWTH:
            self._reported = kept
        self._look_at = min(self.limits.held, self._reported + GROWTH)

    def grown(self) -> None:
        """Hear that this connection keeps noticeably more than before."""

    def count(self, what: str) -> bool:
        """Count one cheap frame; return False, with the connection ended, when there are too many."""
        if self._floods.count(what, self.loop.time()):
            return True
        if not self.wire.dead:
            self._tell("a peer floods us", what=what)
            self.calm(Exhausted(f"{self.wire.where} sends too many {what}", remedy="slow down"))
        return False

    def calm(self, reason: MeshError) -> None:
        """End a connection whose peer asks too much, with ENHANCE_YOUR_CALM."""
        if not self.wire.dead:
            self.engine.goaway(0, http2.ENHANCE_YOUR_CALM)
            self._pour()
            self.wire.end(reason)

    def _on_ping(self, _: http2.Ping) -> None:
        self.count("pings")

    def _on_settings(self, _: http2.Settings) -> None:
        if self.count("settings"):
            self.on_settings()

    def _on_reset(self, event: http2.Reset) -> None:
        if self.count("resets"):
            self.on_reset(event)

    def lost(self, reason: MeshError) -> None:  # noqa: ARG002 - subclasses tell it to their calls
        """Hear that the wire is gone."""
        self.deadlines.clear()
        if self._producers:
            self._wake()

    def on_headers(self, event: http2.Headers) -> None:
        """Take a request, or the beginning of an answer."""
        raise NotImplementedError

    def on_data(self, event: http2.Data) -> None:
        """Take bytes of a call."""
        raise NotImplementedError

    def on_trailers(self, event: http2.Trailers) -> None:
        """Take the end of a call."""
        raise NotImplementedError

    def on_reset(self, event: http2.Reset) -> None:
        """Take a cancellation."""
        raise NotImplementedError

    def on_goaway(self, event: http2.GoAway) -> None:
        """Take the peer's farewell."""
        raise NotImplementedError

    def on_settings(self) -> None:
        """Take the end of the HTTP/2 handshake, or changed settings."""
        raise NotImplementedError

    def on_pong(self, event: http2.Pong) -> None:
        """Take a sign of life."""


class Floods:
    """Counts, per kind of frame, how many came in the running window of time."""

    def __init__(self, limits: Limits) -> None:
        self._window = limits.flood_window
        self._most = {
            "resets": limits.resets,
            "pings": limits.pings,
            "settings": limits.settings,
            "empty frames": limits.empty_frames,
        }
        self._counts: dict[str, int] = {}
        self._until = 0.0

    def count(self, what: str, now: float) -> bool:
        """Return whether one more is within its bound."""
        if now >= self._until:
            self._until = now + self._window
            self._counts.clear()
        seen = self._counts[what] = self._counts.get(what, 0) + 1
        return seen <= self._most[what]
