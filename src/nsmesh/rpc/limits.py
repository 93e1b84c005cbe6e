"""How much one peer may ask of us: every bound of the wire, the engine and the calls in one record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server or client. Sizes are bytes, times are seconds."""

    message: int = 4 << 20
    """Largest gRPC message that is taken or sent."""

    header_list: int = 64 << 10
    """Largest metadata of one call, counted as HTTP/2 does: names, values and 32 bytes per field."""

    streams: int = 1000
    """Calls that one connection may have open at a time."""

    window: int = 1 << 20
    """HTTP/2 flow control window of one stream; a connection as a whole has no such bound, but ``held``."""

    held: int = 64 << 20
    """Bytes that one connection makes us keep: messages that are not worked off, answers that wait."""

    held_in_all: int = 512 << 20
    """The same over all connections of one server: beyond it those end that make us keep the most."""

    call: int = 4096
    """Bytes that a running call counts for in these two, beside its headers and messages."""

    write_buffer: int = 256 << 10
    """Bytes waiting for a slow socket before producers of streams are paused."""

    stall: float = 60.0
    """Time for which a socket may take nothing of what waits for it."""

    stream_buffer: int = 64 << 10
    """Bytes of one stream waiting before its producer is paused, or its sender is told to wait."""

    connections: int = 4096
    """Connections of one server; more are closed at once."""

    half_open: int = 128
    """Connections that have not finished their handshake; the oldest that is silent makes room."""

    handshake: float = 5.0
    """Time in which a new connection must have done TLS and sent its HTTP/2 settings."""

    descriptors: int = 256
    """File descriptors that one connection may send before anybody asks for them."""

    flood_window: float = 10.0
    """The time over which the following are counted."""

    resets: int = 2000
    """Streams that a peer may reset per ``flood_window``."""

    pings: int = 10_000
    """Pings per ``flood_window``."""

    settings: int = 100
    """SETTINGS frames per ``flood_window``."""

    empty_frames: int = 2000
    """DATA frames with nothing in them per ``flood_window``."""

    arrivals: int = 3000
    """Connections from one process or host per ``flood_window``; more are closed at once."""


DEFAULT = Limits()
"""What holds where nobody says otherwise."""
