"""The two HTTP/2 engines: the same bytes mean the same, however cut, and either understands the other."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_helpers import HEADERS, LIMITS

from nsmesh import rpc
from nsmesh.rpc import engine as http2

ANSWER = [(b":status", b"200"), (b"content-type", b"application/grpc")]
NAMES = st.sampled_from(["ng", "h2"])
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([16383, 16384, 16385, 70_000]))


def made(name, *, client, limits=LIMITS):
    found = http2.make(name, limits, client=client)
    found.start()
    return found


def pump(left, right, record=None):
    """Carry bytes until both are silent; return the events of both."""
    heard = ([], [])
    while True:
        out, back = left.take(1 << 20), right.take(1 << 20)
        if record is not None:
            record[0].append(out)
            record[1].append(back)
        if not out and not back:
            return heard
        for events, to, source in ((heard[1], right, out), (heard[0], left, back)):
            for event in to.feed(source) if source else ():
                events.append(event)
                if isinstance(event, http2.Data):
                    to.consumed(event.stream, len(event.data))


def plain(events):
    """Return events without the cuts of data."""
    found = []
    for event in events:
        if isinstance(event, http2.Data):
            last = found[-1] if found else None
            if isinstance(last, http2.Data) and last.stream == event.stream and not last.ended:
                found[-1] = http2.Data(event.stream, last.data + event.data, event.ended)
                continue
            found.append(event)
        elif isinstance(event, (http2.Headers, http2.Trailers)):
            found.append(event._replace(headers=tuple(tuple(pair) for pair in event.headers)))
        else:
            found.append(event)
    return found


CUTS = st.lists(st.integers(0, 1 << 20), max_size=30)
CALL = st.fixed_dictionaries(
    {
        "metadata": st.lists(st.text("abc{}:", max_size=30).map(str.encode), max_size=3),
        "body": st.lists(SIZES, max_size=3),
        "answer": st.lists(SIZES, max_size=3),
        "end": st.sampled_from(["trailers", "only trailers", "server resets", "client resets", "open"]),
    }
)


def converse(script, client, server, record):
    """Play a script between two engines and record the bytes of both directions."""
    pump(client, server, record)
    for number, call in enumerate(script):
        headers = HEADERS + [(b"x-%d" % i, value.strip()) for i, value in enumerate(call["metadata"])]
        stream = client.request(headers)
        for size in call["body"]:
            client.data(stream, bytes([number]) * size, ended=False)
        if call["end"] not in {"open", "client resets"}:
            client.data(stream, b"", ended=True)
        pump(client, server, record)
        if call["end"] == "client resets":
            client.reset(stream, http2.CANCEL)
        elif call["end"] == "only trailers":
            server.headers(stream, [*ANSWER, (b"grpc-status", b"5")], ended=True)
        else:
            server.headers(stream, ANSWER, ended=False)
            for size in call["answer"]:
                server.data(stream, bytes([number]) * size, ended=False)
            pump(client, server, record)
            if call["end"] == "trailers":
                server.trailers(stream, [(b"grpc-status", b"0")])
            elif call["end"] == "server resets":
                server.reset(stream, http2.INTERNAL_ERROR)
        client.ping(b"12345678")
        pump(client, server, record)


def replay(name, script, data, cuts, *, client):
    """Return what a fresh engine makes of recorded bytes in pieces."""
    found = made(name, client=client)
    if client:
        found.take(1 << 20)
        for call in script:
            headers = HEADERS + [(b"x-%d" % i, value.strip()) for i, value in enumerate(call["metadata"])]
            stream = found.request(headers)
            if call["end"] == "client resets":  # it never hears of it: nothing came back
                continue
            found.data(stream, b"", ended=call["end"] != "open")
            found.take(1 << 20)
    events = []
    place = 0
    for cut in [*sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]:
        piece = data[place:cut]
        place = cut
        for event in found.feed(piece) if piece else ():
            events.append(event)
            if isinstance(event, http2.Data):
                found.consumed(event.stream, len(event.data))
        found.take(1 << 20)
    return plain(events)


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(CALL, max_size=4),
    client=NAMES,
    server=NAMES,
    cuts=CUTS,
)
def test_same_bytes_mean_the_same_in_both_engines(script, client, server, cuts):
    """Any conversation, spoken by any engines, cut anywhere, gives equal events in both, at both ends."""
    record = ([], [])
    converse(script, made(client, client=True), made(server, client=False), record)
    for as_client, parts in ((False, record[0]), (True, record[1])):
        data = b"".join(parts)
        whole = replay("ng", script, data, [], client=as_client)
        for name in ("ng", "h2"):
            assert replay(name, script, data, cuts, client=as_client) == whole


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 1000), max_size=60))
def test_goaway_between_frames_keeps_streams_alive(cuts):
    """A GOAWAY tells the last stream, and the answers that come behind it are still heard."""
    server = made("ng", client=False)
    client = made("ng", client=True)
    record = ([], [])
    pump(client, server, record)
    stream = client.request(HEADERS)
    client.data(stream, b"x", ended=True)
    pump(client, server, record)
    server.goaway(http2.LAST_STREAM, http2.NO_ERROR)
    server.headers(stream, ANSWER, ended=False)
    server.data(stream, b"late", ended=False)
    server.trailers(stream, [(b"grpc-status", b"0")])
    pump(client, server, record)
    script = [{"metadata": [], "end": "trailers"}]
    for name in ("ng", "h2"):
        events = replay(name, script, b"".join(record[1]), cuts, client=True)
        assert http2.GoAway(http2.LAST_STREAM, 0) in events
        assert events[-2:] == [
            http2.Data(1, b"late", ended=False),
            http2.Trailers(1, ((b"grpc-status", b"0"),)),
        ]


@pytest.mark.parametrize("client", ["ng", "h2"])
def test_requests_wait_for_the_peers_stream_limit(engine, client):
    """Requests above the server's limit wait by themselves, go out in order, and can be taken back."""
    mine = made(client, client=True)
    theirs = made(engine, client=False, limits=rpc.Limits(streams=2))
    pump(mine, theirs)
    streams = [mine.request(HEADERS) for _ in range(5)]
    for stream in streams:
        mine.data(stream, b"%d" % stream, ended=True)
    assert [e.stream for e in pump(mine, theirs)[1] if isinstance(e, http2.Headers)] == streams[:2]
    mine.reset(streams[2], http2.CANCEL)
    for stream in streams[:2]:
        theirs.headers(stream, ANSWER, ended=True)
    assert [e.stream for e in pump(mine, theirs)[1] if isinstance(e, http2.Headers)] == streams[3:]


def test_window_holds_bytes_back_until_consumed(engine):
    """A sender stops at the window, says how much waits, and goes on as its reader consumes."""
    limits = rpc.Limits(window=100_000)
    mine, theirs = (made(engine, client=side, limits=limits) for side in (True, False))
    pump(mine, theirs)
    stream = mine.request(HEADERS)
    mine.data(stream, bytes(250_000), ended=True)
    got = 0
    while chunk := mine.take(1 << 20):
        got += sum(len(event.data) for event in theirs.feed(chunk) if isinstance(event, http2.Data))
    assert got == 100_000
    assert mine.queued(stream) == 150_000
    theirs.consumed(stream, got)
    events = pump(mine, theirs)[1]
    assert sum(len(event.data) for event in events if isinstance(event, http2.Data)) == 150_000
    assert mine.queued(stream) == 0


def test_padding_is_given_back(engine):
    """Padding uses the window but is no data: the engine gives its credit back by itself."""
    theirs = made(engine, client=False)
    mine = made(engine, client=True)
    pump(mine, theirs)
    stream = mine.request(HEADERS)
    pump(mine, theirs)
    frame = struct.pack(">BHBBI", 0, 1 + 4 + 200, 0, 8, stream) + b"\xc8data" + bytes(200)
    sent = 0
    for _ in range(8000):  # 1.6 MB of padding in a window of 1 MiB
        for event in theirs.feed(frame):
            assert event == http2.Data(stream, b"data", ended=False)
            theirs.consumed(stream, 4)
        sent += 200
        theirs.take(1 << 20)
    assert sent > LIMITS.window


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">BHBBI", 0, 0, 0, 0, 1),
    ],
)
def test_junk_is_an_engine_error(engine, junk):
    """What is no HTTP/2 raises EngineError, or ends the engine; a GOAWAY goes out, and nothing escapes."""
    server = made(engine, client=False)
    server.take(1 << 20)
    try:
        server.feed(junk)
    except http2.EngineError as error:
        last = error.farewell
    else:
        last = server.take(1 << 20)
        assert server.over()
    assert b"\x07\x00\x00\x00\x00\x00" in last


@settings(max_examples=150, deadline=None)
@given(junk=st.binary(max_size=300), name=NAMES)
def test_random_bytes_never_escape_as_other_errors(junk, name):
    """Random bytes behind a preface give events or EngineError, never another exception."""
    server = made(name, client=False)
    with contextlib.suppress(http2.EngineError):
        server.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">BHBBI", 0, 0, 4, 0, 0) + junk)
    server.take(1 << 20)


def test_header_list_beyond_the_hard_limit_ends_the_connection(engine):
    """A header list of four times the limit is an EngineError; one a little too long is an event."""
    limits = rpc.Limits(header_list=4096)
    for size, ends in ((6000, False), (40_000, True)):
        mine = made("ng", client=True)
        server = made(engine, client=False, limits=limits)
        mine.request([*HEADERS, (b"big", b"x" * size)])
        data = mine.take(1 << 20)
        if ends:
            with pytest.raises(http2.EngineError):
                server.feed(data)
        else:
            assert any(isinstance(event, http2.Headers) for event in server.feed(data))


def test_operations_on_an_ended_stream_are_ignored(engine):
    """Who answers a call that was cancelled meanwhile gets no error: the event is on its way."""
    mine, theirs = made(engine, client=True), made(engine, client=False)
    pump(mine, theirs)
    stream = mine.request(HEADERS)
    pump(mine, theirs)
    mine.reset(stream, http2.CANCEL)
    assert http2.Reset(stream, http2.CANCEL) in pump(mine, theirs)[1]
    theirs.headers(stream, ANSWER, ended=False)
    theirs.data(stream, b"x", ended=False)
    theirs.trailers(stream, [(b"grpc-status", b"0")])
    theirs.reset(stream, http2.CANCEL)
    theirs.consumed(stream, 10)
    assert theirs.queued(stream) == 0
    assert pump(mine, theirs) == ([], [])


def test_unknown_engine_is_refused():
    """An engine that does not exist is said so by name."""
    with pytest.raises(ValueError, match="choose ng or h2"):
        http2.make("h3", LIMITS, client=True)
