"""RegistryPath and RegistryPathClient: who a registration went through, in the ``path`` header."""

from __future__ import annotations

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid
from nsmesh.core.expiry import limited
from nsmesh.core.headers import ANSWERED
from nsmesh.core.registry_path import REGISTRY_PATH
from nsmesh.core.tokens import OUTGOING, TokenSource, received_token
from nsmesh.model.messages import Entry
from nsmesh.model.registry_path import PATH_HEADER, read_registry_path, set_path_id
from nsmesh.model.registry_path import RegistryPath as Path
from nsmesh.security.jws import BadToken
from nsmesh.security.token import TokenReader

log = structlog.get_logger()


class RegistryPath(Element):
    """Takes the path out of a call's headers, enters itself, and gives it back in the answer's.

    A call without a readable header has no path, and goes on without one: the policies refuse it. A role of
    this process shares our identity, and gets no segment of its own.

    Writes: REGISTRY_PATH and EXPIRES of the call, ``path_ids`` of the entry, the header of the answer
    """

    def __init__(self, tokens: TokenSource, *, reader: TokenReader | None = None) -> None:
        self._tokens = tokens
        self._reader = reader or TokenReader()

    def _enter(self, call: Call, entry: Entry) -> tuple[Call, Path | None, int]:
        """Return the call as it goes on, its path, and the index to give back."""
        own, own_expires = self._tokens.mint(call.peer)
        if call.peer.in_process:
            path = call.get(REGISTRY_PATH)
            if path is None:
                path = Path()
                set_path_id(entry.path_ids, 0, self._subject(own))
            return limited(call, own_expires).put(REGISTRY_PATH, path), None, 0
        call = limited(call, own_expires)
        try:
            token, expires = received_token(call)
            call = limited(call, expires)
        except ValueError as error:
            log.debug("registry call without a token", name=entry.name, why=str(error))
            token = ""
        path = _read(call, entry)
        if path is None:
            return call, None, 0
        try:
            came = path.enter(token, own)
        except ValueError as error:
            raise Invalid(f"the path header of {entry.name} is bent: {error}", remedy="send {}") from error
        set_path_id(entry.path_ids, came, self._subject(token))
        set_path_id(entry.path_ids, came + 1, self._subject(own))
        return call.put(REGISTRY_PATH, path), path, came

    def _subject(self, token: str) -> str:
        try:
            return self._reader.read(token).subject or ""
        except BadToken:
            return ""  # the policies say so, where there are any

    def _leave(self, call: Call, path: Path | None, came: int) -> None:
        if path is not None:
            path.index = came
            if came + 1 < len(path.tokens):
                path.tokens[came + 1] = self._tokens.fit(path.tokens[came + 1], call.peer)
            call.reply[PATH_HEADER] = path.text()

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Enter, pass on, leave."""
        onward, path, came = self._enter(call, entry)
        stored = await next.register(onward, entry)
        self._leave(call, path, came)
        return stored

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Enter, pass on, leave."""
        onward, path, came = self._enter(call, entry)
        await next.unregister(onward, entry)
        self._leave(call, path, came)


def _read(call: Call, entry: Entry) -> Path | None:
    values = call.header(PATH_HEADER)
    if not values:
        return None
    try:
        return read_registry_path(values[-1])
    except ValueError as error:
        log.info("registry call with a bent path header", name=entry.name, why=str(error))
        return None


class RegistryPathClient(Element):
    """Sends the path along, and takes what the next hop made of it out of its answer.

    A call of our own that has no path (an endpoint expired) goes out with the one on which the entry was
    registered last: its owner is then still known to the next hop.

    After:  Dial
    Reads:  REGISTRY_PATH
    Writes: OUTGOING, and into REGISTRY_PATH
    Leaves: the left part of the path by entry, until Unregister
    """

    after = ("Dial",)

    def __init__(self) -> None:
        self._last: dict[tuple[type[Entry], str], Path] = {}

    @staticmethod
    def _with_header(call: Call, path: Path) -> tuple[Call, dict[str, str]]:
        answered: dict[str, str] = {}
        headers = (*(call.get(OUTGOING) or ()), (PATH_HEADER, path.text()))
        return call.put(REGISTRY_PATH, path).put(OUTGOING, headers).put(ANSWERED, answered), answered

    @staticmethod
    def _take(path: Path, answered: dict[str, str], entry: Entry) -> None:
        text = answered.get(PATH_HEADER)
        if text is None:
            return
        try:
            path.tokens[:] = read_registry_path(text).tokens
        except ValueError as error:
            log.warning("the answer has a bent path header", name=entry.name, why=str(error))

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Send along, take back, keep the left part."""
        path = call.get(REGISTRY_PATH) or Path()
        onward, answered = self._with_header(call, path)
        stored = await next.register(onward, entry)
        self._take(path, answered, entry)
        if path.index:
            self._last[type(entry), stored.name] = Path(path.index, path.tokens[: path.index + 1])
        return stored

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Send along, take back."""
        key = (type(entry), entry.name)
        path = call.get(REGISTRY_PATH) or Path()
        last = self._last.get(key)
        if not path.tokens and last is not None:
            path.index, path.tokens = last.index, list(last.tokens)
        onward, answered = self._with_header(call, path)
        await next.unregister(onward, entry)
        self._take(path, answered, entry)
        self._last.pop(key, None)
