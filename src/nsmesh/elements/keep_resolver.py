"""KeepResolver: the name servers that wires bring stand in the resolver file of their pod."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, DNSConfig, NetworkServiceRequest
from nsmesh.model.resolver_text import ASKED, is_domain, is_server, original, servers, with_wires

log = structlog.get_logger()


class KeepResolver(Element):
    """Writes the DNS contexts of the client's wires into a resolver file, and gives the original back.

    A file that cannot be written costs no wire its Request: it is said, and tried again with the next one.

    After:  BeginClient
    Leaves: the DNS configurations of each wire; the file
    Close:  takes them out of the file, passes on
    """

    after = ("BeginClient", "Refresh", "Heal")

    def __init__(self, path: Path) -> None:
        """Take the file at ``path``; raises Invalid where it cannot be read and written."""
        self._path = path
        self._configs: dict[str, tuple[DNSConfig, ...]] = {}
        self._told: set[str] = set()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise Invalid(
                f"NSM_RESOLVER_FILE: cannot read and write {path}: {error.strerror}",
                remedy="name a resolver file that this process may write, or unset the variable",
            ) from error

    def keeps(self) -> Collection[str]:
        """Return whose configurations are known."""
        return self._configs.keys()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Take its configurations out of the file."""
        if self._configs.pop(connection_id, ()):
            self._write()

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on; write what the answer says of name servers."""
        connection_id = request.connection.id
        answer = await next.request(call, request)
        self._note(connection_id, answer)
        return answer

    async def resume(self, call: Call, connection: Connection) -> None:  # noqa: ARG002 - the face asks for it
        """Write what it says of name servers."""
        self._note(connection.id, connection)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Take its name servers out before they are out of reach, pass on."""
        if self._configs.pop(connection.id, ()):
            self._write()
        await next.close(call, connection)

    def restore(self) -> None:
        """Give the original back, whatever wires there are."""
        self._configs.clear()
        self._write()

    def _note(self, connection_id: str, connection: Connection) -> None:
        configs = connection.context.dns_context.configs
        self._tell_of_wrong(connection_id, configs)
        self._configs[connection_id] = tuple(copy_of(config) for config in configs)
        self._write()

    def _write(self) -> None:
        try:
            found = self._path.read_bytes().decode(errors="surrogateescape")
            configs = [config for each in self._configs.values() for config in each]
            text = with_wires(original(found), configs)
            if text != found:
                _overwrite(self._path, text.encode(errors="surrogateescape"))
                log.info("resolver file written", path=str(self._path), servers=servers(text))
                self._tell_of_many(servers(text))
        except OSError as error:
            log.warning("the resolver file cannot be written", path=str(self._path), error=str(error))

    def _tell_of_many(self, named: Sequence[str]) -> None:
        if len(named) > ASKED:
            self._tell(f"resolvers ask {ASKED} name servers at most: not {', '.join(named[ASKED:])}")

    def _tell_of_wrong(self, connection_id: str, configs: Sequence[DNSConfig]) -> None:
        wrong = [text for config in configs for text in config.dns_server_ips if not is_server(text)]
        wrong += [text for config in configs for text in config.search_domains if not is_domain(text)]
        if wrong:
            self._tell(f"connection {connection_id}: no name servers or domains, left out: {wrong!r}")

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning(what)


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
