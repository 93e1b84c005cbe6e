"""What is read of DNS messages, beside a library that reads all of them."""

import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.dns_message import (
    NO_SUCH_NAME,
    SERVER_FAILURE,
    code_of,
    failure,
    is_query,
    question_of,
    renamed,
    replies_to,
)

LABEL = st.binary(min_size=1, max_size=20)


def query(name="Web.Red.Example", kind="A", **how):
    return dns.message.make_query(name, kind, **how).to_wire()


def reply(asked, code=0):
    made = dns.message.make_response(dns.message.from_wire(asked))
    made.set_rcode(code)
    return made.to_wire()


@given(st.lists(LABEL, max_size=8))
def test_a_question_is_read_as_the_library_writes_it(labels):
    """Whatever octets a name has; in lower case, as names differ in nothing else."""
    name = dns.name.Name([*labels, b""])
    question = question_of(dns.message.make_query(name, "AAAA", use_edns=True).to_wire())
    assert question.name == b".".join(labels).decode("latin-1").lower()


@given(st.binary(max_size=80))
def test_any_octets_are_a_question_or_refused(octets):
    """ValueError is all that they can bring about, and a failure can be made for each whole header."""
    try:
        question = question_of(octets)
    except ValueError:
        question = None
    if question is not None:
        assert question.end <= len(octets)
    if len(octets) >= 12:
        said = failure(octets, SERVER_FAILURE)
        assert said[:2] == octets[:2]
        assert code_of(said) == SERVER_FAILURE


@pytest.mark.parametrize("end", [0, 11, 12, 17, 30])
def test_what_is_cut_off_is_refused(end):
    """Wherever it is cut."""
    with pytest.raises(ValueError, match=r"no DNS message|cut off"):
        question_of(query()[:end])


def test_two_questions_and_compressed_names_are_refused():
    """Nobody asks so; and no name is followed to wherever it points."""
    with pytest.raises(ValueError, match="2 questions"):
        question_of(query()[:5] + b"\2" + query()[6:])
    with pytest.raises(ValueError, match="compressed"):
        question_of(query()[:12] + b"\xc0\x0c\0\1\0\1")


def test_a_name_of_256_octets_is_refused():
    """RFC 1035, 3.1: 255 with all lengths; that one is read."""
    longest = dns.name.Name([b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61, b""])
    wire = dns.message.make_query(longest, "A").to_wire()
    assert len(question_of(wire).name) == 253
    with pytest.raises(ValueError, match="too long"):
        question_of(wire[:204] + b"\x3e" + wire[205:266] + b"d" + wire[266:])


def test_a_failure_is_a_reply_that_the_library_reads():
    """Same identity, same question, no record."""
    asked = dns.message.make_query("web.red.example", "A")
    said = dns.message.from_wire(failure(asked.to_wire(), NO_SUCH_NAME))
    assert asked.is_response(said)
    assert said.rcode() == dns.rcode.NXDOMAIN
    assert said.flags & dns.flags.RA
    assert said.flags & dns.flags.RD
    assert not said.answer


def test_a_reply_has_the_identity_and_the_question():
    """Anything else may come from whoever guesses; a server may write the name in other letters."""
    asked = query()
    assert replies_to(asked, reply(asked))
    assert replies_to(asked, reply(query("web.RED.example", id=int.from_bytes(asked[:2]))))
    assert not replies_to(asked, renamed(reply(asked), b"\0\0" if asked[:2] != b"\0\0" else b"\0\1"))
    assert not replies_to(asked, renamed(reply(query("other.example")), asked[:2]))
    assert not replies_to(asked, renamed(reply(query(kind="AAAA")), asked[:2]))
    assert not replies_to(asked, asked)
    assert not replies_to(asked, b"")


def test_an_error_may_leave_the_question_out():
    """As servers do that could not read it; no answer may."""
    asked = query()
    bare = reply(asked)[:4] + bytes(8)
    assert not replies_to(asked, bare)
    assert replies_to(asked, bare[:3] + b"\1" + bare[4:])


def test_a_reply_and_an_update_are_no_query():
    """They are not passed on."""
    assert is_query(query())
    assert not is_query(reply(query()))
    assert not is_query(query()[:2] + b"\x28" + query()[3:])
