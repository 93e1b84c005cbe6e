"""gRPC's own framing: messages, metadata, timeouts and status texts survive the way there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Exhausted, Internal, Invalid, MeshError, NotFound, Status, Unimplemented
from nsmesh.rpc import framing

KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=20).map(lambda key: "x" + key)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=50)


@given(
    messages=st.lists(st.binary(max_size=300), max_size=8), cuts=st.lists(st.integers(0, 3000), max_size=20)
)
def test_messages_survive_any_cuts(messages, cuts):
    """Messages come out as they went in, wherever the bytes between them are cut."""
    data = b"".join(framing.envelope(message) for message in messages)
    assembler = framing.Assembler(1000)
    found = []
    place = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        found += assembler.feed(data[place:cut])
        place = cut
    assert found == messages
    assert assembler.pending == 0


def test_a_message_that_is_too_large_is_refused_by_its_head():
    """Five bytes are enough to refuse a message: its body is never kept."""
    with pytest.raises(Exhausted, match="5000 bytes"):
        framing.Assembler(1000).feed(framing.envelope(bytes(5000))[:5])


def test_a_compressed_message_is_refused():
    """The compression flag is answered with UNIMPLEMENTED and a text that says why."""
    with pytest.raises(Unimplemented, match="compress"):
        framing.Assembler(1000).feed(b"\1\0\0\0\1x")


@given(pairs=st.lists(st.tuples(KEYS.filter(lambda key: not key.endswith("-bin")), TEXTS), max_size=6))
def test_metadata_keeps_order_and_repeated_keys(pairs):
    """Metadata comes back in order, several values of one key apart."""
    assert framing.decode_metadata(framing.encode_metadata(pairs)) == tuple(pairs)


@given(value=st.binary(max_size=60))
def test_binary_metadata_is_base64_on_the_wire(value):
    """Values of -bin keys are any bytes for the caller, and base64 on the wire."""
    pair = ("trace-bin", value.decode("latin-1"))
    ((name, content),) = framing.encode_metadata([pair])
    assert name == b"trace-bin"
    assert content.isascii()
    assert framing.decode_metadata([(name, content)]) == (pair,)
    assert framing.decode_metadata([(name, content + b"=" * (-len(content) % 4))]) == (pair,)


def test_joined_binary_values_come_apart():
    """Several values of a -bin key may come joined by commas."""
    assert framing.decode_metadata([(b"a-bin", b"AQ,Ag==")]) == (("a-bin", "\x01"), ("a-bin", "\x02"))


@pytest.mark.parametrize(
    "key", ["", ":path", "te", "grpc-timeout", "with space", "new\nline", "ключ", "content-type"]
)
def test_a_key_that_may_not_travel_is_invalid(key):
    """Reserved, empty and malformed keys are refused, not sent."""
    with pytest.raises(Invalid, match="no metadata key"):
        framing.encode_metadata([(key, "value")])


@pytest.mark.parametrize("value", ["a\nb", "ü", "\0", "\x7f"])
def test_a_value_that_may_not_travel_is_invalid(value):
    """Control and non-ASCII characters are refused with a way out."""
    with pytest.raises(Invalid, match="-bin"):
        framing.encode_metadata([("key", value)])


def test_reserved_fields_are_no_metadata():
    """What belongs to the protocol is not shown to handlers."""
    headers = [
        (b":path", b"/x"),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"1S"),
        (b"user-agent", b"x"),
        (b"a", b"1"),
    ]
    assert framing.decode_metadata(headers) == (("a", "1"),)


@given(seconds=st.floats(1e-6, 90_000))
def test_timeouts_survive(seconds):
    """A timeout comes back no later than it was, and less than a millisecond or a millionth earlier."""
    value = framing.encode_timeout(seconds)
    assert len(value) <= 9
    assert value[-1:] in b"um"
    back = framing.decode_timeout(value)
    assert back <= seconds * (1 + 1e-9)
    assert back >= seconds - (1.1e-6 if value.endswith(b"u") else 1.1e-3)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"15S", 15), (b"250m", 0.25), (b"14890545u", 14.890545), (b"5n", 5e-9)],
)
def test_all_units_of_timeouts_are_read(value, seconds):
    """Each of the six units is understood."""
    assert framing.decode_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"S", b"1", b"-1S", b"1.5S", b"123456789S", b"1s", b"1 S"])
def test_bad_timeouts_are_invalid(value):
    """What is no timeout is refused, not guessed."""
    with pytest.raises(Invalid):
        framing.decode_timeout(value)


@given(
    what=st.text(max_size=100).filter(lambda text: " - " not in text),
    status=st.sampled_from(list(Status)[1:]),
)
def test_errors_survive(what, status):
    """Status and text of an error come back, whatever characters are in them."""
    error = MeshError(what)
    error.status = status
    headers = framing.status_headers(error)
    assert headers[1][1].isascii()
    back = framing.outcome(headers)
    assert back is not None
    assert back.status == status
    assert str(back) == str(MeshError(what.encode("utf-8", "replace").decode()))


def test_a_remedy_survives():
    """The remedy is told apart from the sentence at the other side."""
    back = framing.outcome(
        framing.status_headers(NotFound("no such service: ünïcode 100%", remedy="register it"))
    )
    assert isinstance(back, NotFound)
    assert (back.what, back.remedy) == ("no such service: ünïcode 100%", "register it")


def test_a_long_text_is_cut():
    """An error text never grows a header list past its limit."""
    assert len(framing.status_headers(NotFound("é" * 100_000))[1][1]) < 30_000


def test_trailers_without_status_are_internal():
    """A call that ends without a status failed; a status that is no number is UNKNOWN."""
    assert isinstance(framing.outcome([]), Internal)
    for value in (b"x", b"9" * 10_000, b"-1", b"99"):
        back = framing.outcome([(b"grpc-status", value)])
        assert back is not None
        assert back.status == Status.UNKNOWN


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (b"400", 13),
        (b"401", 16),
        (b"403", 7),
        (b"404", 12),
        (b"429", 14),
        (b"502", 14),
        (b"503", 14),
        (b"500", 2),
        (b"", 2),
    ],
)
def test_http_errors_become_statuses(code, status):
    """An answer that is not gRPC is an error with the status that its HTTP code stands for."""
    error = framing.not_grpc([(b":status", code), (b"content-type", b"text/html")])
    assert error is not None
    assert error.status == status
