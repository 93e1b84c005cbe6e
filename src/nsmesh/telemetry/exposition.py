"""Metrics as Prometheus reads them, over HTTP; and those of other processes of ours, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from nsmesh.core.errors import Invalid, MeshError
from nsmesh.core.metrics import DECLARED

log = structlog.get_logger()

TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATIENCE = 5.0
"""Seconds that a reader may take to ask, and one of our processes to answer."""
LARGEST = 64 << 20
"""Bytes that a process of ours may answer."""
OWN = "daemon"


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: Iterable[Metric]) -> bytes:
    """Return the text form."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(list(families)))
    return generate_latest(registry)


async def own() -> list[Metric]:
    """Return what this process counts. What cannot be read now is left out, and logged."""
    found = []
    for metric in DECLARED.values():
        family = Metric(metric.name, metric.help, metric.kind)
        try:
            for sample in await metric.samples():
                family.add_sample(metric.name + sample.suffix, dict(sample.labels), sample.value)
        except MeshError as error:
            log.warning("a metric cannot be read", metric=metric.name, error=str(error))
        found.append(family)
    return found


async def of_all(folder: Path | None) -> bytes:
    """Return our own metrics; with those of the sockets in ``folder``, each with the label ``process``."""
    if folder is None:
        return render(await own())
    sockets = sorted(folder.glob("*.sock"))
    texts = await asyncio.gather(*(_ask(path) for path in sockets))
    total: dict[str, Metric] = {}
    _add(total, OWN, await own())
    for path, text in zip(sockets, texts, strict=True):
        _add(total, path.stem, text_string_to_metric_families(text))
    return render(total.values())


def _add(total: dict[str, Metric], process: str, families: Iterable[Metric]) -> None:
    for family in families:
        known = total.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        for sample in family.samples:
            known.add_sample(sample.name, {**sample.labels, "process": process}, sample.value)


async def _ask(path: Path) -> str:
    """Return the metrics at a socket; nothing where nobody answers."""
    writer = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=LARGEST)
            writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    except (OSError, TimeoutError) as error:
        log.debug("no metrics from a process", socket=str(path), error=str(error))
        return ""
    finally:
        if writer is not None:
            writer.close()
    return body.decode()


class _Server:
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever that was, it has gone, or is no reader of metrics
        except Exception:
            log.exception("metrics cannot be told")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if words[0] not in {b"GET", b"HEAD"} or len(words) < 3:
            return b"HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        if words[1].partition(b"?")[0] != b"/metrics":
            return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        body = await of_all(self._folder)
        lines = f"HTTP/1.1 200 OK\r\nContent-Type: {TYPE}\r\nContent-Length: {len(body)}\r\n"
        whole = body if words[0] == b"GET" else b""
        return lines.encode() + b"Connection: close\r\n\r\n" + whole


def place(text: str, name: str) -> tuple[str, int]:
    """Return (host, port), or (path, 0) for a unix socket; a folder (``unix:///x/``) gets one of our name.

    Raises Invalid for what is no address.
    """
    rest = text.removeprefix("tcp://")
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        return (f"{path}{name}.sock" if path.endswith("/") else path), 0
    host, colon, port = rest.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise Invalid(f"NSM_PROMETHEUS_LISTEN_ON: {text!r} is no address", remedy="write :8081 or IP:PORT")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def exposed(address: str, name: str, folder: Path | None = None) -> AsyncIterator[str]:
    """Serve ``/metrics`` at ``address`` while the block runs; yield the real one.

    A process does not fail for its metrics: where nobody can listen there, that is logged, and "" is yielded.
    Raises Invalid for what is no address.
    """
    host, port = place(address, name)
    serving = _Server(folder).serve
    try:
        if port or not host.startswith("/"):
            server = await asyncio.start_server(serving, host or None, port)
            real = f"{host}:{server.sockets[0].getsockname()[1]}"
        else:
            Path(host).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            Path(host).unlink(missing_ok=True)
            server = await asyncio.start_unix_server(serving, host)
            Path(host).chmod(0o600)
            real = f"unix://{host}"
    except OSError as error:
        log.error("no metrics: nobody can listen there", address=address, error=str(error))  # noqa: TRY400 - a traceback would say nothing more
        yield ""
        return
    log.info("metrics ready", address=real)
    try:
        yield real
    finally:
        server.close()
        if real.startswith("unix:"):
            Path(host).unlink(missing_ok=True)
