"""The nodes of a mesh, as the first host knows them: who joined, who still lives, who was removed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from nsmesh.api import join_pb2
from nsmesh.core.clock import Clock
from nsmesh.core.errors import Conflict, NotFound
from nsmesh.model.times import rfc3339
from nsmesh.security.certificates import BACKDATE
from nsmesh.security.spiffe import Leaf
from nsmesh.standalone.joining import files
from nsmesh.standalone.joining.names import node_of

TTL = 8 * 3600.0
"""Seconds that an SVID of a node, and of what lives on it, is valid: renewed at half, it outlives four hours
without the first host."""
SILENT = 7.0
"""Seconds after which a node that says nothing counts as silent."""


@dataclass(slots=True)
class Member:
    """One node that joined. ``keys``: its last two public keys, the newest first; times in wall seconds."""

    name: str
    address: str
    manager_url: str
    version: str
    joined: float
    keys: list[str]
    seen: float = 0.0

    def message(self) -> join_pb2.Node:
        """Return it as it is told to others."""
        return join_pb2.Node(
            name=self.name,
            address=self.address,
            manager_url=self.manager_url,
            version=self.version,
            joined=self.joined,
            seen=self.seen,
        )


@dataclass(slots=True)
class Removed:
    """When nodes were taken out, in wall seconds: what was issued to them until then counts no more."""

    at: dict[str, float] = field(default_factory=dict)

    def refuses(self, leaf: Leaf) -> str:
        """Say why a peer with a good certificate is refused, or nothing."""
        name, _ = node_of(leaf.id)
        when = self.at.get(name)
        if not name or when is None or leaf.not_before + BACKDATE > when:
            return ""
        return f"the node {name} was removed from the mesh at {rfc3339(when)[:19]}Z"


class Roster:
    """Kept in one file; when a node was seen last is kept in memory."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        saved = files.read(path) or {}
        self.members = {item["name"]: Member(**item) for item in saved.get("members", [])}
        self.removed = Removed(saved.get("removed", {}))

    def free(self, name: str) -> None:
        """Raise Conflict where there is a node of that name."""
        known = self.members.get(name)
        if known is not None:
            raise Conflict(
                f"there is a node {name} in this mesh already ({known.address})",
                remedy=f"join with another one (--name), or take that one out first: nsm node remove {name}",
            )

    def put(self, member: Member) -> None:
        """Add a node, or replace what is known of it."""
        self.members[member.name] = member
        self._save()

    def remove(self, name: str) -> Member:
        """Take a node out; raises NotFound."""
        if name not in self.members:
            there = ", ".join(self.members) or "none that joined"
            raise NotFound(f"there is no node {name} that joined", remedy=f"there are: {there}")
        now = self._clock.now()
        kept = {node: when for node, when in self.removed.at.items() if when + TTL + BACKDATE > now}
        self.removed.at = {**kept, name: now}
        gone = self.members.pop(name)
        self._save()
        return gone

    def saw(self, name: str) -> bool:
        """Note that a node lives; return whether it was silent till now."""
        member = self.members[name]
        before, member.seen = member.seen, self._clock.now()
        return member.seen - before > SILENT

    def _save(self) -> None:
        members = [{**asdict(member), "seen": 0.0} for member in self.members.values()]
        files.write(self._path, {"members": members, "removed": self.removed.at})
