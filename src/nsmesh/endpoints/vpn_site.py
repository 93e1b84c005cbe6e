"""The far end of a VPN: a WireGuard peer with a small web server behind it. For demonstrations and tests.

``python -m nsmesh.endpoints.vpn_site --config FILE`` runs in the foreground until SIGTERM or SIGINT, and
takes everything away that it made.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import yaml

from nsmesh.core import logging
from nsmesh.core.errors import Conflict, Invalid, MeshError, NotFound
from nsmesh.core.scope import Scope
from nsmesh.endpoints.options import read_options, reading
from nsmesh.endpoints.vpn_gateway import TunnelOptions
from nsmesh.endpoints.wireguard_device import Device, tunnel_up

log = structlog.get_logger()

LONGEST = 8192
"""Bytes that the head of an HTTP request may have."""


def read_ports(value: object) -> tuple[int, ...]:
    """Read ports from a list, one number, or text with commas; raises ValueError."""
    items = value if isinstance(value, list) else str(value).split(",")
    ports = tuple(int(str(item)) for item in items if str(item).strip())
    if not all(1 <= port <= 65535 for port in ports):
        raise ValueError(f"{value!r} are no ports from 1 to 65535")
    return ports


@dataclass(frozen=True, kw_only=True)
class VpnSiteOptions(TunnelOptions):
    """The far end of a VPN."""

    title: str = "corporate site"
    """What the pages call themselves."""
    http_ports: tuple[int, ...] = field(default=(80, 8080), metadata=reading(read_ports, "list of ports"))
    """Ports of the web server."""


@asynccontextmanager
async def site(scope: Scope, options: VpnSiteOptions) -> AsyncIterator[Device]:
    """Run the tunnel and the web server while the block runs; ``scope`` owns what watches the tunnel.

    The pages are served on the tunnel's addresses alone. Raises MeshError.
    """
    async with tunnel_up(scope, options.tunnel()) as device, contextlib.AsyncExitStack() as stack:
        hosts = [address.partition("/")[0] for address in options.addresses]
        for port in options.http_ports:
            page = f"{options.title}, port {port}\n"
            await stack.enter_async_context(_web_server(hosts, port, page))
        log.info("site ready", addresses=hosts, ports=options.http_ports)
        yield device


@asynccontextmanager
async def _web_server(hosts: list[str], port: int, page: str) -> AsyncIterator[None]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                body = b"" if head.startswith(b"HEAD ") else page.encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(page.encode()), body)
                )
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, hosts, port, limit=LONGEST)
    except OSError as error:
        raise Conflict(
            f"the web server cannot listen on port {port} of {', '.join(hosts)}: {error.strerror}",
            remedy="choose other http_ports, or stop what listens there",
        ) from None
    async with server:
        yield


async def run(options: VpnSiteOptions) -> None:
    """Run a site until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Scope("vpn site") as scope, site(scope, options):
        await stop.wait()


def read_config(path: Path) -> VpnSiteOptions:
    """Read the options from a YAML file. Raises NotFound or Invalid."""
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise NotFound(f"the configuration {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"the configuration {path} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise Invalid(f"the configuration {path} is not a mapping of options")
    return read_options(VpnSiteOptions, document, {}, endpoint=str(path))


def main(argv: list[str]) -> int:
    """Run a site as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nsmesh.endpoints.vpn_site")
    parser.add_argument("--config", required=True, type=Path, help="YAML file with the options of the site")
    arguments = parser.parse_args(argv)
    logging.configure(role="vpn-site")
    try:
        asyncio.run(run(read_config(arguments.config)))
    except MeshError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
