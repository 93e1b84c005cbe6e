"""Who a caller of the Workload API is: what the kernel says of it, and which SPIFFE IDs that stands for.

Selectors are texts, as SPIRE writes them: ``unix:uid:1000``, ``unix:gid:100``, ``nsm:pid:4711``,
``nsm:started:123456``, the start time of the process in clock ticks, which tells it from a later one of the
same pid, and ``nsm:netns:4026531840``, the inode of the caller's network namespace, which is what tells one
pod or namespace of a host from another.
"""

from __future__ import annotations

import asyncio
import contextlib
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.call import Peer
from nsmesh.core.errors import Invalid
from nsmesh.core.process import start_ticks
from nsmesh.security.spiffe import SpiffeId, trust_domain_of

TTL = 3600.0
"""Seconds that an SVID of an entry is valid unless it says otherwise."""
DEFAULT_TEMPLATE = "spiffe://{trust_domain}/uid/{uid}"
"""ID of a caller that no entry matches, in a mesh of one host: all programs of one user are one."""

_FIELDS = {"uid": "unix:uid:", "gid": "unix:gid:", "pid": "nsm:pid:", "netns": "nsm:netns:"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A caller that has all ``selectors`` may have the SVID ``spiffe_id``.

    ``ttl`` in seconds; ``federates_with`` names trust domains whose bundles the caller gets as well.
    """

    selectors: frozenset[str]
    spiffe_id: str
    ttl: float = TTL
    federates_with: tuple[str, ...] = ()
    hint: str = ""

    def __post_init__(self) -> None:
        if not SpiffeId.parse(self.spiffe_id).path:
            raise Invalid(f"an entry cannot give away {self.spiffe_id}", remedy="give the ID a path")
        if not self.selectors:
            raise Invalid(f"the entry of {self.spiffe_id} has no selector", remedy="say whom it is for")
        if not self.ttl > 0:
            raise Invalid(f"the entry of {self.spiffe_id} has a ttl of {self.ttl:g} s")
        for domain in self.federates_with:
            trust_domain_of(domain)


def attest(peer: Peer) -> frozenset[str]:
    """Return the selectors of a caller; none for one that did not come over a unix socket.

    Its namespace is looked up by its process id, which needs the right to look at that process.
    """
    found = set()
    if peer.uid is not None:
        found.add(f"unix:uid:{peer.uid}")
    if peer.gid is not None:
        found.add(f"unix:gid:{peer.gid}")
    if peer.pid:  # 0: a process of a pid namespace that we cannot see
        found.add(f"nsm:pid:{peer.pid}")
        if (ticks := start_ticks(peer.pid)) is not None:
            found.add(f"nsm:started:{ticks}")
        # gone, or not ours to look at: then no entry that asks for a namespace matches
        with contextlib.suppress(OSError):
            found.add(f"nsm:netns:{Path(f'/proc/{peer.pid}/ns/net').stat().st_ino}")
    return frozenset(found)


class Template:
    """Makes an ID of what is known of a caller: fields uid, gid, pid, netns and trust_domain in braces.

    ``ttl``: seconds that its SVIDs are valid. Raises Invalid for other fields, and where the result could be
    no SPIFFE ID.
    """

    def __init__(self, text: str, trust_domain: str, *, ttl: float = TTL) -> None:
        try:
            parts = [part[1:] for part in string.Formatter().parse(text) if part[1] is not None]
        except ValueError as error:
            raise Invalid(f"the template {text!r} cannot be read: {error}") from error
        fields = {field or "" for field, _, _ in parts}
        if any(form or conversion for _, form, conversion in parts):
            raise Invalid(f"the template {text!r} has a format", remedy="write fields like {uid}")
        if unknown := fields - {*_FIELDS, "trust_domain"}:
            raise Invalid(
                f"the template {text!r} has the unknown field {min(unknown)!r}",
                remedy=f"known are {', '.join([*_FIELDS, 'trust_domain'])}",
            )
        self._fields = fields - {"trust_domain"}
        self._text = text
        self._domain = trust_domain
        self._ttl = ttl
        example = SpiffeId.parse(self._fill(dict.fromkeys(self._fields, "1")))
        if example.trust_domain != trust_domain or not example.path:
            raise Invalid(f"the template {text!r} makes no IDs of {trust_domain}")

    def _fill(self, values: dict[str, str]) -> str:
        return self._text.format(trust_domain=self._domain, **values)

    def entry(self, selectors: frozenset[str]) -> Entry | None:
        """Return an entry for a caller, or None where a field of the template is not known of it."""
        values, used = {}, set()
        for field in self._fields:
            prefix = _FIELDS[field]
            one = next((selector for selector in selectors if selector.startswith(prefix)), None)
            if one is None:
                return None
            values[field] = one.removeprefix(prefix)
            used.add(one)
        return Entry(frozenset(used or selectors), self._fill(values), self._ttl) if selectors else None


class Entries:
    """The registration entries. Whoever waits for a change learns of each."""

    def __init__(self, *entries: Entry, template: Template | None = None) -> None:
        self._entries: dict[Entry, None] = dict.fromkeys(entries)
        self._template = template
        self._changed = asyncio.Event()

    def register(self, entry: Entry) -> Callable[[], None]:
        """Add an entry; returns what removes it."""
        self._entries[entry] = None
        self.announce()
        return lambda: self.remove(entry)

    def remove(self, entry: Entry) -> None:
        """Remove an entry; one that is not there is removed already."""
        if entry in self._entries:
            del self._entries[entry]
            self.announce()

    def matching(self, selectors: frozenset[str]) -> list[Entry]:
        """Return what a caller may have: the most specific entry first; else that of the template."""
        found = [entry for entry in self._entries if entry.selectors <= selectors]
        if not found and self._template is not None:
            default = self._template.entry(selectors)
            return [] if default is None else [default]
        return sorted(found, key=lambda entry: -len(entry.selectors))

    def announce(self) -> None:
        """Wake all who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def change(self) -> asyncio.Event:
        """An event that is set at the next change. Take it first, then look, then wait."""
        return self._changed
