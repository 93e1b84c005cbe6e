"""The few calls to the API server that identities need: single requests, and the lines of a watch.

HTTP/1.1, one connection for each request: there are a handful in an hour, and one long one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from nsmesh.core.errors import Conflict, Internal, Invalid, NotFound, Unauthorized, Unavailable

LIMIT = 16 * 1024 * 1024
"""Bytes of one line or answer: a pod is 1.5 MB at most."""
ANSWER = 10.0
"""Seconds within which a single request must be answered."""
_KINDS = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 410: Conflict, 422: Invalid}


class ApiServer:
    """Calls ``host:port`` with the certificate authority and the token of a service account's folder."""

    def __init__(self, host: str, port: int, folder: Path) -> None:
        self._host = host
        self._port = port
        self._folder = folder
        try:
            self._context = ssl.create_default_context(cafile=folder / "ca.crt")
        except OSError as error:
            raise NotFound(
                f"{folder / 'ca.crt'} cannot be read: {error}",
                remedy="give the pod a service account: automountServiceAccountToken: true",
            ) from error

    @classmethod
    def in_cluster(cls, folder: Path, environment: Mapping[str, str] = os.environ) -> ApiServer:
        """Return the API server of the cluster that this pod runs in; raises NotFound outside of one."""
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise NotFound("KUBERNETES_SERVICE_HOST is not set: this is no pod", remedy="run it in a cluster")
        return cls(host, int(port), folder)

    async def call(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what the API server answers, decoded; raises MeshError of the kind of its status."""
        try:
            async with asyncio.timeout(ANSWER), self._sent(verb, path, body) as (reader, headers):
                pieces = [piece async for piece in _body(reader, headers)]
        except TimeoutError:
            raise Unavailable(f"the API server does not answer {verb} {path}") from None
        return json.loads(b"".join(pieces) or b"{}")

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a watch until it ends; raises MeshError."""
        rest = b""
        async with self._sent("GET", path, None) as (reader, headers):
            async for piece in _body(reader, headers):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield json.loads(line)

    @contextlib.asynccontextmanager
    async def _sent(
        self, verb: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, dict[str, str]]]:
        content = json.dumps(body).encode() if body is not None else b""
        try:
            token = (self._folder / "token").read_text().strip()
            reader, writer = await asyncio.open_connection(
                self._host, self._port, ssl=self._context, limit=LIMIT
            )
        except OSError as error:
            raise Unavailable(
                f"the API server at {self._host}:{self._port} cannot be reached: {error}"
            ) from error
        try:
            writer.write(self._head(verb, path, token, len(content)) + content)
            status, headers = await _answered(reader)
            if status >= 300:
                text = b"".join([piece async for piece in _body(reader, headers)])
                raise _KINDS.get(status, Unavailable)(f"{verb} {path}: {_message(status, text)}")
            yield reader, headers
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Unavailable(f"the API server broke off {verb} {path}: {error}") from error
        finally:
            writer.close()

    def _head(self, verb: str, path: str, token: str, size: int) -> bytes:
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [
            f"{verb} {path} HTTP/1.1",
            f"Host: {host}:{self._port}",
            f"Authorization: Bearer {token}",
            "Accept: application/json",
            "Content-Type: application/json",
            f"Content-Length: {size}",
            "User-Agent: nsmesh",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode()


async def _answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = head[0].split(" ", 2)
    if len(words) < 2 or not words[1].isdecimal():
        raise Internal(f"the API server answered {head[0][:60]!r}, which is no HTTP")
    headers = (line.partition(":") for line in head[1:] if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in headers}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
    else:
        yield await reader.read()


def _message(status: int, text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status}"
