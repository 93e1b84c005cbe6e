"""Traces through all hops, W3C ``traceparent`` and ``baggage`` in the metadata, by OpenTelemetry.

A role's answer is a span of kind SERVER, whose parent is what the caller's metadata say, or what runs around
a call in this process. A call to a remote peer is a span of kind CLIENT, and its context goes along.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.observing import Headers, installed
from nsmesh.telemetry.timing import Surrounding

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

T = TypeVar("T")

log = structlog.get_logger()

SCOPE = "nsmesh"
_STREAMS = ("MonitorConnections", "Find")
"""Calls that may last for ever: no span for them."""


@contextmanager
def tracing(name: str, endpoint: str) -> Iterator[None]:
    """Send traces of this process to an OTLP collector (gRPC, plaintext) while the block runs.

    Where OpenTelemetry is not installed, one line of the log says so and nothing is traced.
    """
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - only where traces are wanted
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - likewise
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - likewise
    except ImportError as error:
        log.error(  # noqa: TRY400 - a sentence, no traceback
            "TELEMETRY=true, and OpenTelemetry is not installed: nothing is traced",
            error=str(error),
            remedy="pip install 'nsmesh[telemetry]'",
        )
        yield
        return
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
    log.info("traces are sent", to=endpoint)
    try:
        with installed(Tracing(provider)):
            yield
    finally:
        provider.shutdown()


class Tracing:
    """The observer that traces, with the tracers of ``provider``."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.baggage.propagation import W3CBaggagePropagator  # noqa: PLC0415 - an extra
        from opentelemetry.propagators.composite import CompositePropagator  # noqa: PLC0415 - likewise
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - likewise
            TraceContextTextMapPropagator,
        )

        self.tracer = provider.get_tracer(SCOPE)
        self.propagator = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])

    def role(self, name: str, handler: Handler) -> Handler:
        """See :class:`nsmesh.core.observing.Observer`."""
        return _Role(self, name, handler)

    def link(self, chain: str, element: Element, handler: Handler) -> Handler:  # noqa: ARG002 - the face
        """See :class:`nsmesh.core.observing.Observer`: elements have no spans of their own."""
        return handler

    def outgoing(
        self, method: str, url: str, call: Call, headers: Headers
    ) -> AbstractContextManager[Headers]:
        """See :class:`nsmesh.core.observing.Observer`."""
        if method.endswith(_STREAMS):
            return nullcontext(headers)
        return self._outgoing(method, url, call, headers)

    @contextmanager
    def _outgoing(self, method: str, url: str, call: Call, headers: Headers) -> Iterator[Headers]:  # noqa: ARG002 - the face asks for it
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra

        attributes = {"rpc.system": "grpc", "rpc.method": method.lstrip("/"), "server.address": url}
        with self.tracer.start_as_current_span(
            method.lstrip("/"), kind=SpanKind.CLIENT, attributes=attributes, record_exception=False
        ):
            carrier: dict[str, str] = {}
            self.propagator.inject(carrier)
            yield (*headers, *carrier.items())


class _Role(Surrounding):
    """A role whose every answer is a span."""

    def __init__(self, tracing: Tracing, name: str, inner: Handler) -> None:
        super().__init__(inner)
        self._tracing = tracing
        self._name = name

    async def around(self, verb: str, call: Call, work: Awaitable[T]) -> T:
        """Answer within a span of kind SERVER."""
        from opentelemetry import context, trace  # noqa: PLC0415 - an extra

        parent = None
        if not call.peer.in_process:
            # never what happens to run around the connection that the call came on
            parent = self._tracing.propagator.extract(dict(call.metadata), context=context.Context())
        attributes = {"nsm.role": self._name, "nsm.peer": call.peer.spiffe_id}
        span = self._tracing.tracer.start_span(
            f"{self._name} {verb}", context=parent, kind=trace.SpanKind.SERVER, attributes=attributes
        )
        token = context.attach(trace.set_span_in_context(span, parent))
        try:
            return await work
        except MeshError as error:
            span.set_status(trace.Status(trace.StatusCode.ERROR, error.what))
            span.set_attribute("rpc.grpc.status_code", int(error.status))
            raise
        finally:
            context.detach(token)
            span.end()
