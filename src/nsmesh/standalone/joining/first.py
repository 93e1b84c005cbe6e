"""The first host of a mesh: others join here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.core.clock import Clock
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.join_token import JoinToken, pin_of
from nsmesh.security.spiffe import Leaf
from nsmesh.standalone.joining import files
from nsmesh.standalone.joining.mesh_port import MeshPort
from nsmesh.standalone.joining.pinned import PortIdentity
from nsmesh.standalone.joining.place import Address, Place
from nsmesh.standalone.joining.roster import Roster
from nsmesh.standalone.joining.tokens import Tokens


@dataclass(frozen=True, slots=True)
class FirstHost:
    """Implements :class:`nsmesh.standalone.joining.hosts.Hosts`."""

    place: Place
    port: MeshPort
    joined: bool = False

    @property
    def first(self) -> str:
        """This host."""
        return self.place.name

    def nodes(self) -> Sequence[join_pb2.Node]:
        """Return all nodes."""
        return self.port.nodes()

    def refuses(self, leaf: Leaf) -> str:
        """Say whether a peer is of a node that was removed."""
        return self.port.roster.removed.refuses(leaf)

    def token(self, lifetime: float) -> JoinToken:
        """Return a new join token, good for ``lifetime`` seconds; raises Invalid or Exhausted."""
        return self.port.tokens.create(lifetime, pin_of(self.port.authority.active.certificate))

    def remove(self, name: str) -> None:
        """Take a node out: it gets no new identity, and the one that it has counts no more here."""
        self.port.gone(self.port.roster.remove(name))


@asynccontextmanager
async def served_mesh_port(
    place: Place,
    mesh: str,
    authority: CertificateAuthority,
    state: Path,
    clock: Clock,
    *,
    tell: Callable[[str], None],
) -> AsyncIterator[FirstHost]:
    """Let hosts join while the block runs; ``state`` is the folder of tokens and roster.

    ``tell`` hears what happens. Raises Conflict or Unavailable where the port cannot be had.
    """
    tokens, roster = Tokens(state / "join-tokens.json", clock), Roster(state / "nodes.json", clock)
    port = MeshPort(place, mesh, authority, roster, tokens, clock, tell)
    identity = PortIdentity(authority, clock)
    async with rpc.serve(place.address.mesh, port.methods(), identity=identity):
        yield FirstHost(place, port)


def remembered(path: Path) -> Place | None:
    """Return where this host listened when it was up last, or None; raises Invalid."""
    found = files.read(path)
    return Place(found["name"], Address(found["ip"], found["port"])) if found else None


def remember(path: Path, place: Place) -> None:
    """Write down where this host listens; raises Unavailable."""
    files.write(path, {"name": place.name, "ip": place.address.ip, "port": place.address.port})
