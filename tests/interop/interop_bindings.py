"""From recorded values to live ones and back: identifiers, tokens, addresses, descriptors, names, times."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from interop_fields import is_map
from interop_trace import Trace

from nsmesh.core.clock import Clock
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import inode_url
from nsmesh.model.times import from_rfc3339, rfc3339, seconds, timestamp
from nsmesh.security import jws
from nsmesh.security.svid import Svid

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TOKEN = re.compile(r"@token:\d+")


@dataclass
class Bindings:
    """What stands for what. ``svids``: identities by role, ours included; ``role``: which one is ours.

    ``files``: live paths by the names of descriptors. ``urls``: live URLs by recorded ones. ``delta``: from
    recorded wall time to live, seconds.
    """

    trace: Trace
    role: str
    clock: Clock
    svids: dict[str, Svid]
    files: dict[str, Path] = field(default_factory=dict)
    sockets: dict[str, Callable[[], Path]] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    delta: float = 0.0

    def __post_init__(self) -> None:
        self.token_names = {one["raw"]: name for name, one in self.trace.tokens.items()}
        self.delta = self.clock.now() - self.trace.recorded_at

    @property
    def name(self) -> str:
        """The name of our role in paths."""
        return self.trace.environment(self.role).get("NSM_NAME", self.role)

    # -- recorded to live ------------------------------------------------------------------------------------

    def live(self, message: Message) -> Any:
        """Return a recorded message as the player has to send it."""
        out = copy_of(message)
        self._make_live(out)
        return out

    def _make_live(self, message: Message) -> None:
        if isinstance(message, Timestamp):
            message.CopyFrom(timestamp(seconds(message) + self.delta))
            return
        for one, value in message.ListFields():
            if is_map(one):
                self._live_map(one, value)
            elif one.is_repeated and one.message_type:
                for item in value:
                    self._make_live(item)
            elif one.message_type:
                self._make_live(value)
            elif one.cpp_type == one.CPPTYPE_STRING and not one.is_repeated:
                setattr(message, one.name, self.text(value))

    def _live_map(self, one: Any, value: Any) -> None:
        holds = one.message_type.fields_by_name["value"].message_type
        if not holds:
            for key, item in dict(value).items():  # a map that is changed meanwhile skips entries
                value[key] = self.text(item)
            return
        items = {key: copy_of(value[key]) for key in value}
        value.clear()
        for key, item in items.items():
            self._make_live(item)
            value[self.text(key)].CopyFrom(item)

    def text(self, value: str) -> str:
        """Return the live value for one text: what has none stays as it is."""
        if value in self.token_names:
            return self.token(self.token_names[value])
        if value in self.trace.inodes:
            return self.inode(value)
        prefix, slash, name = value.rpartition("/")
        if slash and prefix == "KERNEL" and name in self.names:
            return f"KERNEL/{self.names[name]}"
        return self.ids.get(value) or self.urls.get(value) or self.names.get(value, value)

    def spoken(self, value: str) -> str:
        """Return a text with all that is recorded in it made live: headers and error messages."""
        value = TOKEN.sub(lambda found: self.token(found[0]), value)
        value = UUID.sub(lambda found: self.ids.get(found[0], found[0]), value)
        for url in self.trace.inodes:
            if url in value:
                value = value.replace(url, self.inode(url))
        return value

    def inode(self, url: str) -> str:
        """Return the live URL of a descriptor; of one whose file is not there yet, the recorded one."""
        path = self.file(self.trace.inodes[url])
        if path is None or not path.exists():
            return url
        found = path.stat()
        return inode_url(found.st_dev, found.st_ino)

    def moved(self, text: str) -> str:
        """Return a recorded RFC 3339 time, moved to now; one that cannot be read stays."""
        try:
            return rfc3339(from_rfc3339(text) + self.delta)
        except ValueError:
            return text

    def same_subject(self, recorded: Any, ours: Any) -> bool:
        """Return whether two messages speak of the same connection or entry."""
        if hasattr(recorded, "name"):
            return bool(recorded.name == ours.name)
        one, other = (getattr(message, "connection", message) for message in (recorded, ours))
        if not one.path.path_segments or not other.path.path_segments:
            return True
        first, second = one.path.path_segments[0], other.path.path_segments[0]
        return bool((first.name, self.ids.get(first.id, first.id)) == (second.name, second.id))

    def urls_in(self, message: Message) -> list[str]:
        """Return the recorded inode URLs in a message."""
        text = str(message)
        return [url for url in self.trace.inodes if f'"{url}"' in text]

    def paths_of(self, message: Message) -> list[Path]:
        """Return the files whose inode URLs stand in a recorded message."""
        found = [self.file(self.trace.inodes[url]) for url in self.urls_in(message)]
        return [path for path in found if path is not None]

    def file(self, name: str) -> Path | None:
        """Return the file that a descriptor's name stands for."""
        found = self.sockets.get(name)
        return found() if found is not None else self.files.get(name)

    def token(self, name: str) -> str:
        """Return the live token; one that has none yet is signed for the role that signed it.

        A foreign or broken one stays as bent as it was.
        """
        if name not in self.tokens:
            recorded = self.trace.tokens[name]
            signer = self.svids.get(recorded.get("signature") or "")
            if signer is None and recorded.get("signature") != "foreign":
                self.tokens[name] = recorded["raw"]
            else:
                self.tokens[name] = self._signed(recorded, signer or self.svids["foreign"])
        return self.tokens[name]

    def _signed(self, recorded: dict[str, Any], signer: Svid) -> str:
        claims = dict(recorded["claims"])
        if isinstance(claims.get("exp"), int | float):
            shifted = claims["exp"] + self.delta
            claims["exp"] = int(shifted) if isinstance(claims["exp"], int) else shifted
        header = {key: value for key, value in recorded["header"].items() if key != "alg"}
        return jws.sign(header, claims, signer.key)

    # -- live to recorded ------------------------------------------------------------------------------------

    def bound(self, table: dict[str, str], recorded: str, live: str) -> bool:
        """Bind a recorded value to a live one, one to one; return whether that agrees with what is known."""
        known = table.get(recorded)
        if known is None:
            if live in table.values():
                return False
            table[recorded] = live
            return True
        return known == live

    def is_token(self, recorded: str) -> bool:
        """Return whether a recorded text is a token."""
        return recorded in self.token_names


def verifies(token: str, svid: Svid) -> bool:
    """Return whether the key of an identity signed a token."""
    return jws.parse(token).verifies(svid.key.public_key())


Compare = Callable[[Any, Any], None]
