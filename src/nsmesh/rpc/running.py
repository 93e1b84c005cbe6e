"""One call at the server, from its headers to its status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from nsmesh.core.call import Peer
from nsmesh.core.errors import Exhausted, Internal, Invalid, MeshError, Remote, Status, TimedOut
from nsmesh.core.scope import Scope
from nsmesh.rpc import framing, telling
from nsmesh.rpc.deadlines import Deadlines
from nsmesh.rpc.inbox import Inbox, Keeper
from nsmesh.rpc.methods import Bidi, Method, ServerCall, ServerStream, Unary

log = structlog.get_logger()

HEAD = [(b":status", b"200"), (b"content-type", framing.CONTENT_TYPE)]
_OK = [(b"grpc-status", b"0")]
_TOLD = frozenset(
    (
        Status.INVALID_ARGUMENT,
        Status.PERMISSION_DENIED,
        Status.RESOURCE_EXHAUSTED,
        Status.INTERNAL,
        Status.UNAUTHENTICATED,
    )
)
"""What the log of a server hears of: a caller asked what it must not, or too much, or we are at fault."""


def tell_refusal(carrier: Carrier, path: str, peer: Peer, error: MeshError) -> None:
    """Log the refusal of a call, where it is one: by which rule, at which hop, of whom, by whom."""
    if error.status in _TOLD:
        who = telling.name_of(peer)
        telling.SHARED.warn(
            "refused a call", about=who, method=path, peer=who, at=carrier.own, reason=str(error)
        )


class Carrier(Keeper, Protocol):
    """The connection, as its calls see it."""

    scope: Scope
    loop: asyncio.AbstractEventLoop
    deadlines: Deadlines

    @property
    def where(self) -> str:
        """Who is on the other side, in words."""
        ...

    @property
    def own(self) -> str:
        """Who we are."""
        ...

    def room(self, size: int) -> None:
        """Raise Exhausted where an answer of so many bytes is too much beside all that waits."""
        ...

    async def drain(self, stream: int) -> None:
        """Wait until the stream has room."""
        ...

    def ended(self, stream: int, *, complete: bool) -> None:
        """Hear that a call's status was queued; ``complete``: the client has sent all."""
        ...


class Running:
    """A call that runs."""

    __slots__ = (
        "_answering",
        "_assembler",
        "_call",
        "_carrier",
        "_complete",
        "_held",
        "_inbox",
        "_message",
        "_method",
        "_task",
        "over",
        "stream",
    )

    def __init__(self, carrier: Carrier, stream: int, call: ServerCall, method: Method) -> None:
        self._carrier = carrier
        self._call = call
        self._method = method
        self._assembler = framing.Assembler(carrier.limits.message)
        self._message: bytes | None = None
        self._inbox: Inbox | None = None
        self._task: asyncio.Task[None] | None = None
        self._held = 0
        self._answering = False  # our initial headers have gone
        self._complete = False  # the client has sent all
        self.stream = stream
        self.over = False

    @property
    def single(self) -> bool:
        """Whether it has one answer."""
        return isinstance(self._method, Unary)

    def charge(self, size: int) -> None:
        """Count bytes that the call costs while it runs; raises Exhausted, and counts nothing then."""
        try:
            self._hold(size)
        except MeshError:
            self._hold(-size)
            raise

    def begin(self) -> None:
        """Start the deadline, and the handler where it does not wait for a message."""
        deadline = self._call.deadline
        if deadline is not None:
            self._carrier.deadlines.add(self.stream, deadline, self._late)
        if isinstance(self._method, Bidi):
            self._inbox = Inbox(self._carrier, self.stream)
            self._start()

    def _start(self) -> None:
        carrier = self._carrier
        self._task = carrier.loop.create_task(self._run(), name=self._call.path)
        carrier.scope.own(self._task)

    def take(self, data: bytes) -> None:
        """Take bytes from the client; what is wrong with them ends the call."""
        carrier = self._carrier
        try:
            before = self._assembler.pending
            messages = self._assembler.feed(data)
            if more := self._assembler.pending - before:
                self._hold(more)
            if self._inbox is not None:
                self._inbox.arrived(len(data), messages)
                return
            carrier.engine.consumed(self.stream, len(data))
            for message in messages:
                if self._message is not None:
                    raise Internal(f"{self._call.path} takes one message, and more came")
                self._message = message
                self._hold(len(message))
        except MeshError as error:
            self.fail(error)

    def _hold(self, size: int) -> None:
        self._held += size
        self._carrier.hold(size)

    def complete(self) -> None:
        """Act on the end of what the client sends."""
        if self._complete or self.over:
            return
        self._complete = True
        if self._assembler.pending:
            self.fail(Internal("the last message ended before its end"))
        elif self._inbox is not None:
            self._inbox.finish(None)
        elif self._message is None:
            self.fail(Internal(f"{self._call.path} takes one message, and none came"))
        else:
            self._start()

    async def _run(self) -> None:
        """Run the handler and send what it gives, or what it raises."""
        call = self._call
        method = self._method
        try:
            if isinstance(method, Bidi):
                await self._stream(method.handler(call, self._messages()))
            else:
                message = self._message
                assert message is not None
                if isinstance(method, ServerStream):
                    await self._stream(method.handler(call, message))
                else:
                    self._answer(await method.handler(call, message))
                    self._end()
        except MeshError as error:
            self.fail(error)
        except asyncio.CancelledError:
            self.fail(Remote(Status.CANCELLED, f"{call.path} was cancelled at the server"))
            raise
        except Exception:
            log.exception("a handler failed", method=call.path, peer=call.peer.spiffe_id or call.peer.uid)
            text = f"a fault in the handler of {call.path}"
            self.fail(Internal(text, remedy="the log of the server has the details"))

    async def _messages(self) -> AsyncIterator[bytes]:
        assert self._inbox is not None
        while (message := await self._inbox.get()) is not None:
            yield message

    async def _stream(self, answers: AsyncIterator[bytes]) -> None:
        try:
            async for answer in answers:
                self._answer(answer)
                self._carrier.soon()
                await self._carrier.drain(self.stream)
        finally:
            close = getattr(answers, "aclose", None)
            if close is not None:
                await close()
        self._end()

    def _head(self) -> None:
        """Send the initial headers, once."""
        if not self._answering:
            reply = self._call.reply
            head = HEAD + framing.encode_metadata(reply.items()) if reply else HEAD
            self._answering = True
            self._carrier.engine.headers(self.stream, head, ended=False)

    def _answer(self, message: bytes) -> None:
        limit = self._carrier.limits.message
        if len(message) > limit:
            raise Exhausted(
                f"the answer of {self._call.path} has {len(message)} bytes, more than the {limit} allowed",
                remedy="ask for less at once",
            )
        if not self.over:
            self._carrier.room(len(message))
            self._head()
            self._carrier.engine.data(self.stream, framing.envelope(message), ended=False)

    def _end(self) -> None:
        """Send status OK."""
        if not self.over:
            self._head()
            self._forget()
            self._carrier.engine.trailers(self.stream, _OK)
            self._carrier.ended(self.stream, complete=self._complete)

    def fail(self, error: MeshError) -> None:
        """Send the status of ``error``, unless the call is over, and stop the handler."""
        if self.over:
            return
        self.drop()
        tell_refusal(self._carrier, self._call.path, self._call.peer, error)
        status = framing.status_headers(error)
        engine = self._carrier.engine
        if self._answering:
            engine.trailers(self.stream, status)
        else:
            engine.headers(self.stream, [*HEAD, *self._reply_of_failure(), *status], ended=True)
        self._carrier.ended(self.stream, complete=self._complete)

    def _reply_of_failure(self) -> list[tuple[bytes, bytes]]:
        try:
            return framing.encode_metadata(self._call.reply.items())
        except Invalid:  # then that is why it failed
            return []

    def _late(self) -> None:
        self.fail(TimedOut(f"{self._call.path} did not end by its deadline"))

    def drop(self) -> None:
        """End without a word: nobody waits for the answer any more."""
        if self.over:
            return
        self._forget()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _forget(self) -> None:
        self.over = True
        self._carrier.deadlines.drop(self.stream)
        if self._inbox is not None:
            self._inbox.discard()
        self._hold(-self._held)
