"""As much of a DNS message (RFC 1035) as who passes it on has to read: the header and the question."""

from __future__ import annotations

from dataclasses import dataclass

NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED = 0, 1, 2, 3, 4
"""Response codes."""
HEADER = 12
LONGEST_NAME = 255
"""Octets of a name, with the length of each label and the root's."""

_REPLY, _OPCODE, _ASKS_RECURSION, _RECURSES = 0x80, 0x78, 0x01, 0x80


@dataclass(frozen=True, slots=True)
class Question:
    """What a query asks: ``name`` in lower case, without the root's dot; ``end``: octets up to its end."""

    name: str
    end: int


def question_of(message: bytes) -> Question:
    """Return the only question of ``message``; raises ValueError where there is none that can be read."""
    if len(message) < HEADER:
        raise ValueError(f"{len(message)} octets are no DNS message")
    if (count := int.from_bytes(message[4:6])) != 1:
        raise ValueError(f"{count} questions, not one")
    labels, at = [], HEADER
    while at < len(message) and (length := message[at]):
        if length > 63:
            raise ValueError("the name of the question is compressed, or no name")
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    if at + 5 > len(message) or at + 1 - HEADER > LONGEST_NAME:
        raise ValueError("the question is cut off, or its name too long")
    # Octets that are no text are no name of ours, but still a name: each stands for itself.
    return Question(b".".join(labels).decode("latin-1").lower(), at + 5)


def is_query(message: bytes) -> bool:
    """Return whether it asks for records, and is no reply, notification or update."""
    return len(message) >= HEADER and not message[2] & (_REPLY | _OPCODE)


def code_of(reply: bytes) -> int:
    """Return the response code in the header of ``reply``."""
    return reply[3] & 0x0F


def renamed(message: bytes, identity: bytes) -> bytes:
    """Return ``message`` with another identity, of two octets."""
    return identity + message[2:]


def replies_to(query: bytes, reply: bytes) -> bool:
    """Return whether ``reply`` is one to ``query``: same identity, same question.

    A server that could not read the question may leave it out of an error.
    """
    if len(reply) < HEADER or not reply[2] & _REPLY or reply[:2] != query[:2]:
        return False
    if reply[4:6] == b"\0\0":
        return code_of(reply) != NO_ERROR
    try:
        asked, answered = question_of(query), question_of(reply)
    except ValueError:
        return False
    of_query, of_reply = query[asked.end - 4 : asked.end], reply[answered.end - 4 : answered.end]
    return asked.name == answered.name and of_query == of_reply


def failure(query: bytes, code: int) -> bytes:
    """Return the reply that says nothing but ``code``; ``query`` has a whole header."""
    try:
        question = query[HEADER : question_of(query).end]
    except ValueError:
        question = b""
    first = _REPLY | query[2] & (_OPCODE | _ASKS_RECURSION)
    counts = (1 if question else 0).to_bytes(2) + bytes(6)
    return query[:2] + bytes([first, _RECURSES | code]) + counts + question
