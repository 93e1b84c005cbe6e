"""This host among others: the first one, where others join, or one that joined."""

from __future__ import annotations

from contextlib import AsyncExitStack

from nsmesh.chains.runtime import Runtime
from nsmesh.core.call import Peer
from nsmesh.core.clock import Clock
from nsmesh.core.errors import MeshError, Refused, Unauthorized
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.spiffe import SpiffeId
from nsmesh.standalone.events import Events
from nsmesh.standalone.identity import opened_authority
from nsmesh.standalone.joining import first, record
from nsmesh.standalone.joining.hosts import Hosts
from nsmesh.standalone.joining.member import Member, running_member
from nsmesh.standalone.joining.names import node_of
from nsmesh.standalone.joining.place import Place
from nsmesh.standalone.joining.roster import Member as Node
from nsmesh.standalone.paths import MeshPaths


def remembered(paths: MeshPaths) -> Place | None:
    """Return where this host is among others, as its last start left it; raises Invalid."""
    membership = record.load(paths.membership)
    return membership.place if membership else first.remembered(paths.listening)


async def opened(paths: MeshPaths, stack: AsyncExitStack, clock: Clock) -> CertificateAuthority | Member:
    """Return who issues identities: our own CA, or, on a host that joined, the membership."""
    if not paths.membership.exists():
        return opened_authority(paths, clock)
    member = running_member(paths.membership, paths.trust_domain, clock)
    return await stack.enter_async_context(member)


async def running_hosts(
    paths: MeshPaths,
    stack: AsyncExitStack,
    authority: CertificateAuthority | Member,
    held: Runtime,
    events: Events,
    listen: Place | None,
) -> Hosts | None:
    """Return the hosts of the mesh, None where there is and will be this one alone. Raises MeshError."""
    found: Hosts | None
    if isinstance(authority, Member):
        if listen is not None:
            record.check_up(paths.membership, listens=True)

        def alarm(error: MeshError) -> None:
            events.add("node", error.what, failed=True, remedy=error.remedy)

        authority.tell = lambda text: _told(events, text)
        authority.alarm = alarm
        authority.heard = events.tell
        found = authority
    else:
        place = listen or first.remembered(paths.listening)
        if place is None:
            return None

        def end_peers(node: Node) -> None:
            why = Unauthorized(f"the node {node.name} is out of the mesh")
            for server in held.servers:
                server.end_peers(lambda peer: _is_of(peer, node.name), why)

        found = await stack.enter_async_context(
            first.served_mesh_port(
                place,
                paths.mesh,
                authority,
                paths.state,
                held.clock,
                tell=lambda text: _told(events, text),
            )
        )
        found.port.out.append(end_peers)
        first.remember(paths.listening, place)
    if held.secured is not None:
        held.secured.identity.refuses = found.refuses
    return found


def first_host(hosts: Hosts | None, mesh: str) -> first.FirstHost:
    """Return this host as the first of a mesh; raises Refused where it is not."""
    if isinstance(hosts, first.FirstHost):
        return hosts
    if hosts is not None:
        raise Refused(
            f"this host joined the mesh {mesh}; who is in it is decided on the first host, {hosts.first}",
            remedy=f"call it on {hosts.first}",
        )
    raise Refused(
        f"no host can join the mesh {mesh}: it does not listen for any",
        remedy=f"bring it up as one that does: nsm --mesh {mesh} down; nsm --mesh {mesh} up --listen IP",
    )


def _told(events: Events, text: str) -> None:
    events.add("node", text)


def _is_of(peer: Peer, node: str) -> bool:
    return bool(peer.spiffe_id) and node_of(SpiffeId.parse(peer.spiffe_id))[0] == node
