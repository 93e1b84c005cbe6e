"""Route netlink, the transport: framing, batches with their answers, dumps.

Messages are sent in one call and their answers read without waiting: rtnetlink works in the sender's
context, so when ``send`` returns the answers are already queued.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple, Self, TypeAlias

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1

SOL_NETLINK = 270
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
SO_NETNS_COOKIE = 71

_AF_NETLINK, _SOCK_RAW, _NETLINK_ROUTE = 16, 3, 0  # plain numbers: enums cost more than the call
_SOL_SOCKET, _MSG_DONTWAIT = 1, 0x40

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U32_ATTRIBUTE = struct.Struct("=HHI")
_ERROR = struct.Struct("=i")
_LENGTH = struct.Struct("=I")
_COOKIE = struct.Struct("=Q")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_TYPE_MASK = 0x3FFF
_CHUNK = 96
"""Messages per send: their error answers must all fit the socket's receive buffer."""
_RECEIVE = 32768


Message: TypeAlias = tuple[int, int, bytes]
"""One request: message type, flags (NLM_F_REQUEST need not be among them) and body."""


class Failure(NamedTuple):
    """One request that the kernel refused: what it was about, the error number, the kernel's own words."""

    about: object
    number: int
    text: str


def attribute(kind: int, data: bytes) -> bytes:
    """Return one attribute, padded."""
    size = len(data) + 4
    return _ATTRIBUTE.pack(size, kind) + data + _PADDING[size & 3]


def u32(kind: int, value: int) -> bytes:
    """Return one attribute that holds 32 bits."""
    return _U32_ATTRIBUTE.pack(8, kind, value)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes in ``data`` from ``offset`` on, by type; of equal types the last."""
    found = {}
    end = len(data)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


class Batch:
    """Requests to be sent together. Each says what it is ``about``, so that a refusal can name it."""

    __slots__ = ("_abouts", "_messages")

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._abouts: list[object] = []

    def put(self, message: Message, about: object = None) -> None:
        """Append one request."""
        kind, flags, body = message
        sequence = len(self._messages) % _CHUNK
        self._messages.append(_HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, sequence, 0) + body)
        self._abouts.append(about)

    def __len__(self) -> int:
        return len(self._messages)

    def chunks(self) -> Iterator[tuple[bytes, list[object]]]:
        """Yield bytes to send and, by sequence number from 0, what each request is about.

        Only the last request of a chunk asks for an acknowledgement: errors come for all of them.
        """
        for start in range(0, len(self._messages), _CHUNK):
            messages = self._messages[start : start + _CHUNK]
            size, kind, flags, sequence, port = _HEADER.unpack_from(messages[-1])
            messages[-1] = _HEADER.pack(size, kind, flags | NLM_F_ACK, sequence, port) + messages[-1][16:]
            yield b"".join(messages), self._abouts[start : start + _CHUNK]


class Netlink:
    """A route netlink socket of the namespace that the calling thread is in when it is made."""

    __slots__ = ("_socket",)

    def __init__(self) -> None:
        # The plain socket below Python's own class: one is opened and closed for each end of each wire.
        self._socket = socket.SocketType(_AF_NETLINK, _SOCK_RAW, _NETLINK_ROUTE)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        self._socket.close()

    @property
    def cookie(self) -> int:
        """The number of the socket's namespace, never given twice while the machine runs."""
        raw = self._socket.getsockopt(_SOL_SOCKET, SO_NETNS_COOKIE, 8)
        value: int = _COOKIE.unpack(raw)[0]
        return value

    def send(self, batch: Batch) -> list[Failure]:
        """Send all requests of ``batch`` and return those that the kernel refused, in order."""
        failures: list[Failure] = []
        for data, abouts in batch.chunks():
            self._socket.send(data)
            self._collect(abouts, failures)
        return failures

    def _collect(self, abouts: list[object], failures: list[Failure]) -> None:
        last = len(abouts) - 1
        while True:
            data = self._socket.recv(_RECEIVE, _MSG_DONTWAIT)
            for kind, flags, sequence, start, end in frames(data):
                if kind != NLMSG_ERROR:
                    continue
                number = -_ERROR.unpack_from(data, start)[0]
                if number:
                    failures.append(Failure(abouts[sequence], number, _kernel_text(data[start:end], flags)))
                if sequence == last:
                    return

    def ask(self, message: Message) -> list[tuple[int, bytes]]:
        """Send one request that is answered by one message; return type and body, or nothing.

        Raises OSError with the kernel's error number.
        """
        return self._answers(message, message[1])

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """Return type and body of all objects that a dump request yields; raises OSError."""
        while True:
            try:
                return self._answers(message, message[1] | NLM_F_DUMP)
            except InterruptedError:
                continue  # the table changed meanwhile: what was read may lack or repeat entries

    def strict(self) -> None:
        """Have the kernel filter dumps by what their requests say; older kernels give everything."""
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        except OSError as error:  # pragma: no cover - kernels before 4.20
            if error.errno != errno.ENOPROTOOPT:
                raise

    def _answers(self, message: Message, flags: int) -> list[tuple[int, bytes]]:
        kind, _, body = message
        self._socket.send(_HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, 0, 0) + body)
        dumping = flags & NLM_F_DUMP == NLM_F_DUMP
        found: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            data = self._socket.recv(_RECEIVE, _MSG_DONTWAIT)
            for answer, answer_flags, _, start, end in frames(data):
                interrupted = interrupted or bool(answer_flags & NLM_F_DUMP_INTR)
                if answer == NLMSG_DONE:
                    if interrupted:
                        raise InterruptedError(errno.EINTR, "dump interrupted")
                    return found
                if answer == NLMSG_ERROR:
                    number = -_ERROR.unpack_from(data, start)[0]
                    if number:
                        raise OSError(number, _kernel_text(data[start:end], answer_flags))
                    return found
                found.append((answer, data[start:end]))
            if not dumping:
                return found


def frames(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield type, flags, sequence, start and end of each body in a received datagram."""
    offset = 0
    total = len(data)
    while offset + 16 <= total:
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if size < 16:
            return
        yield kind, flags, sequence, offset + 16, offset + size
        offset += (size + 3) & ~3


def _kernel_text(error: bytes, flags: int) -> str:
    """Return the kernel's own explanation of an error (NLMSGERR_ATTR_MSG), or nothing."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    # Between the number and the attributes stands the request that was refused, or its header alone.
    request = 16 if flags & NLM_F_CAPPED else (_LENGTH.unpack_from(error, 4)[0] + 3) & ~3
    text = attributes(error, 4 + request).get(NLMSGERR_ATTR_MSG, b"")
    return text.rstrip(b"\0").decode(errors="replace")
