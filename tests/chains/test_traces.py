"""One Request over real sockets: one trace through all hops, with the right parents."""

import asyncio

import pytest
import structlog
from descriptor_mesh import OURS, DescriptorMesh

from nsmesh.core.observing import installed

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import MeshError, Refused
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.telemetry import tracing as traces
from nsmesh.telemetry.tracing import Tracing

REQUEST = "networkservice.NetworkService/Request"


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with installed(Tracing(provider)):
        yield exporter


def line_of(spans):
    """Return the names of a trace's spans from the root to the leaf, each an only child."""
    by_parent = {span.parent.span_id if span.parent else None: span for span in spans}
    assert len(by_parent) == len(spans)
    found, at = [], None
    while at in by_parent:
        found.append(by_parent[at].name)
        at = by_parent[at].context.span_id
    return found


@pytest.mark.parametrize("share", [False, True])
def test_a_request_is_one_trace(spans, share):
    """Client, manager, forwarder and endpoint each add a span to one trace; in one process all the same."""

    async def main():
        async with DescriptorMesh(share=share) as mesh:
            spans.clear()
            await mesh.nsc.request(OURS.within(5), mesh.wanted(7))
            return spans.get_finished_spans()  # what heals while the mesh is stopped is of no matter

    found = [span for span in asyncio.run(main()) if "equest" in span.name]
    assert len({span.context.trace_id for span in found}) == 1
    between = [] if share else [REQUEST]
    assert line_of(found) == [
        REQUEST,
        "nsmgr nsmgr request",
        *between,
        "forwarder forwarder request",
        REQUEST,
        "endpoint nse request",
    ]


def test_two_requests_are_two_traces(spans):
    """What runs around a connection that stays does not leak into the calls that come on it later."""

    async def main():
        async with DescriptorMesh() as mesh:
            spans.clear()
            for number in (1, 2):
                await mesh.nsc.request(OURS.within(5), mesh.wanted(number))

    asyncio.run(main())
    found = [span for span in spans.get_finished_spans() if span.name == "endpoint nse request"]
    assert len({span.context.trace_id for span in found}) == 2


class Look(Element):
    seen = None

    async def request(self, call, request, next):
        Look.seen = baggage.get_baggage("tenant", context.get_current())
        if request.connection.id == "bad":
            raise Refused("no")
        return await next.request(call, request)


def test_what_a_foreign_caller_sends_is_taken_up(spans):
    """A traceparent in the metadata is the parent, baggage is there for elements, an error is told."""
    from nsmesh.core.observing import observed_role

    role = observed_role("nse", chain(Look()))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    metadata = (("traceparent", f"00-{trace}-00f067aa0ba902b7-01"), ("baggage", "tenant=blue"))

    async def main():
        call = Call(peer=Peer(spiffe_id="spiffe://t/go"), metadata=metadata)
        await role.request(call, NetworkServiceRequest(connection=Connection(id="good")))
        with pytest.raises(MeshError):
            await role.request(call, NetworkServiceRequest(connection=Connection(id="bad")))

    asyncio.run(main())
    good, bad = spans.get_finished_spans()
    assert f"{good.context.trace_id:032x}" == trace
    assert good.parent.span_id == 0x00F067AA0BA902B7
    assert Look.seen == "blue"
    assert good.status.is_ok
    assert not bad.status.is_ok


def test_without_the_extra_one_line_says_so(monkeypatch, capsys):
    """TELEMETRY without OpenTelemetry is one clear error in the log, and the process runs on."""
    import sys

    from nsmesh.core import logging

    logging.configure(role="x")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with traces.tracing("x", "localhost:1"):
        pass
    structlog.reset_defaults()  # what was set up writes to a stream that ends with this test
    structlog.contextvars.clear_contextvars()
    (line,) = capsys.readouterr().err.splitlines()
    assert "OpenTelemetry is not installed" in line
    assert "nsmesh[telemetry]" in line
