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
_FLAGS = struct.Struct("=H")
_FLAGS_AT, _FLAGS_END = 6, 8
_COOKIE = struct.Struct("=Q")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_TYPE_MASK = 0x3FFF
_CHUNK = 96
"""Requests per send: their error answers must all fit the socket's receive buffer."""
_RECEIVE = 32768
_ACK_SIZE = 36
"""Bytes of a lone acknowledgement: header, error number, the header of its request."""
_ACK_NUMBER = slice(16, 20)
_NO_ERROR = bytes(4)


Message: TypeAlias = bytes
"""One request with its header, as it is sent; the sequence number is 0."""


def request(kind: int, flags: int, body: bytes) -> Message:
    """Return one request: message type, flags beside NLM_F_REQUEST, and body."""
    return _HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, 0, 0) + body


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
        self._messages: list[Message] = []
        self._abouts: list[object] = []

    def put(self, message: Message, about: object = None) -> None:
        """Append one request."""
        self._messages.append(message)
        self._abouts.append(about)

    def __len__(self) -> int:
        return len(self._messages)

    def chunks(self) -> Iterator[tuple[bytes, int]]:
        """Yield bytes to send and the number of the first request in them.

        Only the last request of a chunk asks for an acknowledgement: errors come for all of them.
        """
        messages = self._messages
        for start in range(0, len(messages), _CHUNK):
            part = messages[start : start + _CHUNK]
            part[-1] = _with_flags(part[-1], _flags_of(part[-1]) | NLM_F_ACK)
            yield b"".join(part), start

    def about(self, refused: Message, start: int) -> object:
        """Return what a refused request is about, which was sent in the chunk that starts at ``start``."""
        flags = _flags_of(refused) & ~NLM_F_ACK
        try:
            return self._abouts[self._messages.index(_with_flags(refused, flags), start)]
        except ValueError:  # pragma: no cover - the kernel gives back what it was sent
            return None


class Netlink:
    """A netlink socket (route by default) of the namespace that the calling thread is in when it is made."""

    __slots__ = ("_socket",)

    def __init__(self, protocol: int = _NETLINK_ROUTE) -> None:
        # The plain socket below Python's own class: one is opened and closed for each end of each wire.
        self._socket = socket.SocketType(_AF_NETLINK, _SOCK_RAW, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a second time does nothing."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    @property
    def cookie(self) -> int:
        """The number of the socket's namespace, never given twice while the machine runs."""
        raw = self._socket.getsockopt(_SOL_SOCKET, SO_NETNS_COOKIE, 8)
        value: int = _COOKIE.unpack(raw)[0]
        return value

    def send(self, batch: Batch) -> list[Failure]:
        """Send all requests of ``batch`` and return those that the kernel refused, in order."""
        failures: list[Failure] = []
        for data, start in batch.chunks():
            self._socket.send(data)
            answer = self._socket.recv(_RECEIVE, _MSG_DONTWAIT)
            if len(answer) != _ACK_SIZE or answer[_ACK_NUMBER] != _NO_ERROR:
                self._collect(answer, batch, start, failures)
        return failures

    def _collect(self, data: bytes, batch: Batch, start: int, failures: list[Failure]) -> None:
        """Read errors until the answer to the request that asked for one: the last."""
        while True:
            for kind, flags, _, at, end in frames(data):
                if kind != NLMSG_ERROR:
                    continue
                number = -_ERROR.unpack_from(data, at)[0]
                size, _, asked, _, _ = _HEADER.unpack_from(data, at + 4)
                if number:
                    about = batch.about(data[at + 4 : at + 4 + size], start)
                    failures.append(Failure(about, number, _kernel_text(data[at:end], flags)))
                if asked & NLM_F_ACK:
                    return
            data = self._socket.recv(_RECEIVE, _MSG_DONTWAIT)

    def ask(self, message: Message) -> list[tuple[int, bytes]]:
        """Send one request that is answered by one message; return type and body, or nothing.

        Raises OSError with the kernel's error number.
        """
        return self._answers(message)

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """Return type and body of all objects that a dump request yields; raises OSError."""
        while True:
            try:
                return self._answers(_with_flags(message, _flags_of(message) | NLM_F_DUMP), dumping=True)
            except InterruptedError:
                continue  # the table changed meanwhile: what was read may lack or repeat entries

    def strict(self) -> None:
        """Have the kernel filter dumps by what their requests say; older kernels give everything."""
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        except OSError as error:  # pragma: no cover - kernels before 4.20
            if error.errno != errno.ENOPROTOOPT:
                raise

    def _answers(self, message: Message, *, dumping: bool = False) -> list[tuple[int, bytes]]:
        self._socket.send(message)
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


def _flags_of(message: Message) -> int:
    flags: int = _FLAGS.unpack_from(message, _FLAGS_AT)[0]
    return flags


def _with_flags(message: Message, flags: int) -> Message:
    """Return a request with other flags in its header."""
    return message[:_FLAGS_AT] + _FLAGS.pack(flags) + message[_FLAGS_END:]


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
