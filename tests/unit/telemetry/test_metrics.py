"""Metrics: counted, timed, and told to Prometheus, also for other processes."""

import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nsmesh.core import metrics
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Invalid, MeshError, Refused
from nsmesh.core.observing import installed, observed_role
from nsmesh.core.probes import Inject
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.telemetry import exposition, timing


@pytest.fixture
def declared(monkeypatch):
    """Metrics that are declared in a test are forgotten after it."""
    monkeypatch.setattr(metrics, "DECLARED", dict(metrics.DECLARED))
    monkeypatch.setattr(exposition, "DECLARED", metrics.DECLARED)


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def ask(address, what="/metrics", verb="GET"):
    if address.startswith("unix://"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix://"))
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{verb} {what} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def test_what_is_counted_is_told(declared):
    """Counters, gauges and histograms come back as they were counted, in Prometheus' own text form."""
    counter = metrics.Counter("nsm_test_things", "Things.", ("kind",))
    gauge = metrics.Gauge("nsm_test_level", "A level.", ("of",))
    histogram = metrics.Histogram("nsm_test_seconds", "How long.")
    counter.add("a")
    counter.add("a", by=2)
    for took in (0.0001, 0.02, 99.0):
        histogram.observe(took)

    async def later():
        return {("x",): 2.0}

    async def main():
        with gauge.reading(lambda: {("x",): 1.0}), gauge.reading(later):
            return samples((await exposition.of_all(None)).decode())

    found = asyncio.run(main())
    assert found["nsm_test_things_total", (("kind", "a"),)] == 3
    assert found["nsm_test_level", (("of", "x"),)] == 3
    assert found["nsm_test_seconds_bucket", (("le", "0.0005"),)] == 1
    assert found["nsm_test_seconds_bucket", (("le", "+Inf"),)] == 3
    assert found["nsm_test_seconds_count", ()] == 3
    assert found["nsm_test_seconds_sum", ()] == pytest.approx(99.0201)
    assert asyncio.run(gauge.samples()) == []


def test_a_metric_that_cannot_be_read_spoils_no_other(declared):
    """One that fails is left out; the rest is told."""
    broken = metrics.Gauge("nsm_test_broken", "Broken.")
    metrics.Counter("nsm_test_fine", "Fine.").add()

    def fail():
        raise Refused("the kernel says no")

    async def main():
        with broken.reading(fail):
            return samples((await exposition.of_all(None)).decode())

    assert ("nsm_test_fine_total", ()) in asyncio.run(main())


def test_two_metrics_of_one_name_are_a_mistake(declared):
    """A name is declared once."""
    metrics.Counter("nsm_test_once", "Once.")
    with pytest.raises(ValueError, match="nsm_test_once"):
        metrics.Counter("nsm_test_once", "Twice.")


class SlowOne(Element):
    async def request(self, call, request, next):
        await asyncio.sleep(0.05)
        return await next.request(call, request)


def test_roles_and_elements_are_timed(monkeypatch):
    """A role's answers are counted by verb and status; an element's time is its own, not that behind it."""
    for metric in (timing.REQUESTS, timing.SECONDS, timing.ELEMENT):
        monkeypatch.setattr(metric, "values" if metric is timing.REQUESTS else "_known", {})

    async def main():
        with installed(timing.Timing()):
            fault = Inject(lambda: Refused("no"), times=1)
            role = observed_role("nse", chain(SlowOne(), fault, name="nse chain"))
        request = NetworkServiceRequest(connection=Connection(id="c"))
        with pytest.raises(MeshError):
            await role.request(Call(), request)
        await role.request(Call(), request)
        await role.close(Call(), request.connection)

    asyncio.run(main())
    assert timing.REQUESTS.values == {
        ("nse", "request", "FAILED_PRECONDITION"): 1,
        ("nse", "request", "OK"): 1,
        ("nse", "close", "OK"): 1,
    }
    sums = {labels: buckets.sum for labels, buckets in timing.ELEMENT._known.items()}
    assert sums["nse chain", "slow_one", "request"] >= 0.09
    assert sums["nse chain", "inject", "request"] < 0.04


def test_nothing_is_in_the_way_where_nobody_looks():
    """Without an observer a chain is what it was: its first element is in front, nothing in between."""
    made = chain(SlowOne(), Inject(lambda: Refused("no")))
    assert made.element is made.elements[0]
    assert made.next.element is made.elements[1]


def test_over_http(tmp_path):
    """/metrics answers GET and HEAD; anything else is 404 or 405, and a broken reader harms nobody."""

    async def main():
        async with exposition.exposed("127.0.0.1:0", "x") as address:
            status, body = await ask(address)
            assert status == 200
            assert "nsm_role_requests" in body
            assert await ask(address, verb="HEAD") == (200, "")
            assert (await ask(address, "/other"))[0] == 404
            assert (await ask(address, verb="POST"))[0] == 405
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"x" * 100_000)
            writer.close()
            assert (await ask(address))[0] == 200

    asyncio.run(main())


def test_processes_are_put_together(tmp_path, declared):
    """Who is given a folder adds what its sockets tell, each with its process; a dead socket is left out."""
    metrics.Counter("nsm_test_together", "Together.").add()
    (tmp_path / "dead.sock").touch()

    async def main():
        async with (
            exposition.exposed(f"unix://{tmp_path}/", "firewall"),
            exposition.exposed("127.0.0.1:0", "daemon", tmp_path) as address,
        ):
            return samples((await ask(address))[1])

    found = asyncio.run(main())
    processes = {dict(labels)["process"] for name, labels in found if name == "nsm_test_together_total"}
    assert processes == {"daemon", "firewall"}
    assert [path.name for path in tmp_path.iterdir()] == ["dead.sock"]


def test_a_place_that_is_taken_is_no_end(tmp_path, capsys):
    """A process goes on without metrics where nobody can listen; what is no address is a mistake."""

    async def main():
        async with (
            exposition.exposed("127.0.0.1:0", "x") as address,
            exposition.exposed(address, "y") as second,
        ):
            assert second == ""

    asyncio.run(main())
    with pytest.raises(Invalid, match="no address"):
        exposition.place("nowhere", "x")
    assert exposition.place(":8081", "x") == ("", 8081)
    assert exposition.place("tcp://[::1]:9", "x") == ("::1", 9)
    assert exposition.place("unix:///a/b/", "x") == ("/a/b/x.sock", 0)


def test_names_follow_the_house():
    """Every metric is nsm_<element>_<what>, or nsmesh_<what> of a whole mesh, with a sentence."""
    for name, metric in metrics.DECLARED.items():
        assert re.fullmatch(r"nsm_[a-z0-9]+(_[a-z0-9]+)+|nsmesh(_[a-z0-9]+)+", name)
        assert metric.help.endswith(".")
