"""LocalDns: names of wires are found by their own servers, all others by those that the pod had before."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.element import Element, Handler
from nsmesh.dns.server import LocalServer
from nsmesh.model.copying import copy_of
from nsmesh.model.dns_choice import Choice, Group
from nsmesh.model.messages import Connection, DNSConfig, NetworkServiceRequest
from nsmesh.model.resolver_text import is_domain, is_server, original, with_server

log = structlog.get_logger()


class LocalDns(Element):
    """Serves DNS to the pod of a client, and has the pod's resolver file name it, while wires bring servers.

    Before the first wire that does, it neither listens nor touches the file. Where it cannot do either, no
    wire is refused for that: it is said, and tried again with the next Request.

    After:  BeginClient
    Leaves: the DNS configurations of each wire; a socket; the file
    Close:  takes them out of use, and gives the original file back with the last; passes on
    """

    after = ("BeginClient", "Refresh", "Heal")

    def __init__(self, path: Path, host: str, port: int) -> None:
        """Listen at ``host`` and ``port``, and keep the file at ``path``."""
        self._path = path
        self._host = host
        self._port = port
        self._configs: dict[str, tuple[DNSConfig, ...]] = {}
        self._choice = Choice()
        self._server: LocalServer | None = None
        self._told: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Give back what an earlier process has left in the file: nobody answers for it now."""
        if self._path.exists():
            self._write()
        self._server = LocalServer(self._host, self._port, self._groups, self.scope)
        try:
            yield self
        finally:
            self._server.close()

    def keeps(self) -> Collection[str]:
        """Return whose configurations are known."""
        return self._configs.keys()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Take its configurations out of use."""
        if self._configs.pop(connection_id, ()):
            self._write()

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on; put to use what the answer says of name servers."""
        connection_id = request.connection.id
        answer = await next.request(call, request)
        await self._note(connection_id, answer)
        return answer

    async def resume(self, call: Call, connection: Connection) -> None:  # noqa: ARG002 - the face asks for it
        """Put to use what it says of name servers."""
        await self._note(connection.id, connection)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Take its name servers out of use before they are out of reach, pass on."""
        if self._configs.pop(connection.id, ()):
            self._write()
        await next.close(call, connection)

    def restore(self) -> None:
        """Give the original file back, whatever wires there are."""
        self._configs.clear()
        self._write()

    def _groups(self, name: str) -> list[Group]:
        return self._choice.groups(name)

    async def _note(self, connection_id: str, connection: Connection) -> None:
        configs = connection.context.dns_context.configs
        self._tell_of_wrong(connection_id, configs)
        self._configs[connection_id] = tuple(copy_of(config) for config in configs)
        if not self._chosen("").wires or await self._listens():
            self._write()

    def _chosen(self, before: str) -> Choice:
        configs = [one for each in self._configs.values() for one in each]
        return Choice.of(before, configs, self._host)

    async def _listens(self) -> bool:
        assert self._server is not None, "the chain runs"
        try:
            await self._server.start()
        except OSError as error:
            self._tell(
                f"names of wires are not served: nothing can listen at {self._host}:{self._port}:"
                f" {error.strerror or error}",
                remedy="the port needs the capability NET_BIND_SERVICE; set NSM_LOCAL_DNS_SERVER_ADDRESS to "
                "another address of the loopback, or NSM_LOCAL_DNS_SERVER_ENABLED=false",
            )
            return False
        return True

    def _write(self) -> None:
        try:
            found = self._path.read_bytes().decode(errors="surrogateescape")
            before = original(found)
            self._choice = self._chosen(before)
            text = before
            if self._choice.wires:
                named = [domain for zone in self._choice.wires for domain in zone.domains]
                text = with_server(before, self._host, named)
            if text != found:
                _overwrite(self._path, text.encode(errors="surrogateescape"))
                wires = {" ".join(zone.domains) or "others": zone.servers for zone in self._choice.wires}
                log.info("resolver file written", path=str(self._path), names=wires)
        except OSError as error:
            self._tell(
                f"names of wires are not served: {self._path} cannot be written: {error.strerror}",
                remedy="run the client as root and without readOnlyRootFilesystem, or set "
                "NSM_LOCAL_DNS_SERVER_ENABLED=false",
            )

    def _tell_of_wrong(self, connection_id: str, configs: Sequence[DNSConfig]) -> None:
        wrong = [text for config in configs for text in config.dns_server_ips if not is_server(text)]
        wrong += [text for config in configs for text in config.search_domains if not is_domain(text)]
        if wrong:
            self._tell(f"connection {connection_id}: no name servers or domains, left out: {wrong!r}")

    def _tell(self, what: str, **more: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning(what, **more)


def _overwrite(path: Path, data: bytes) -> None:
    """Write in place: in a pod the file is a mount of its own, and no other can be moved to its name.

    The new text is written over the old one, with empty lines to its end, and cut off only then: a process
    that is killed in between leaves neither an empty file nor lines of two texts.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        whole, done = data.ljust(os.fstat(descriptor).st_size, b"\n"), 0
        while done < len(whole):
            done += os.pwrite(descriptor, whole[done:], done)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)
