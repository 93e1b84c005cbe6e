"""ExcludedPrefixes: addresses that no endpoint shall give to a client of this node."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import structlog
import yaml

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.model.messages import Connection, NetworkServiceRequest

log = structlog.get_logger()


def read_prefixes(text: str) -> tuple[str, ...]:
    """Return the prefixes of an excluded prefixes file, each once; raises ValueError saying what is wrong.

    The file is YAML, ``prefixes: [cidr, ...]``; the key's case does not matter.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML: {error}") from error
    if content is None:
        return ()
    if not isinstance(content, dict):
        raise ValueError("it is no mapping with the key prefixes")  # noqa: TRY004 - a fault of the file
    found = next((value for key, value in content.items() if str(key).lower() == "prefixes"), None) or []
    if not isinstance(found, list):
        raise ValueError("prefixes is no list")  # noqa: TRY004 - a fault of the file
    return tuple(dict.fromkeys(str(ipaddress.ip_network(str(item), strict=False)) for item in found))


class ExcludedPrefixes(Element):
    """Adds the prefixes of a file to what a Request excludes already.

    The file is read again when it changed. One that is missing excludes nothing; one that cannot be
    understood leaves what was read before. An empty ``file`` name means none.

    Writes: context.ip_context.excluded_prefixes; creates both contexts
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._prefixes: tuple[str, ...] = ()

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the file excludes now."""
        if self._file:
            self._look()
        return self._prefixes

    def _look(self) -> None:
        try:
            stat = os.stat(self._file)  # noqa: PTH116 - for each Request: a Path takes ten times as long
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            text = Path(self._file).read_text(encoding="utf-8")
        except FileNotFoundError:
            self._seen, self._prefixes = None, ()
            return
        except (OSError, UnicodeDecodeError) as error:
            log.warning("excluded prefixes cannot be read", file=self._file, error=str(error))
            return
        self._seen = seen
        try:
            self._prefixes = read_prefixes(text)
        except ValueError as error:
            log.warning("excluded prefixes not understood", file=self._file, error=str(error))
        else:
            log.info("excluded prefixes read", file=self._file, prefixes=len(self._prefixes))

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Add, pass on."""
        context = request.connection.context
        context.SetInParent()
        context.ip_context.SetInParent()
        excluded = context.ip_context.excluded_prefixes
        known = set(excluded)
        excluded.extend(prefix for prefix in self.prefixes if prefix not in known)
        return await next.request(call, request)
