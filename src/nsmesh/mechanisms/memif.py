"""MEMIF: the wire ends in a socket, by which a user-space process shares the memory of its rings."""

from __future__ import annotations

import posixpath

from nsmesh.core.errors import Invalid
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import INODE_URL, file_path, file_url
from nsmesh.model.messages import LOCAL, MEMIF, PAYLOADS, Connection, Mechanism
from nsmesh.model.sockets import SOCKET_FILE, short_name, socket_of, socket_problem, unreachable
from nsmesh.model.wire import MemifPort
from nsmesh.model.wiring import Side

MEMIF_ID = "memifID"
"""Our own parameter: the interface's number on its socket; 0 where it is absent."""
_REMEDY = "set the MEMIF parameter socketfile to a short absolute path, or to @NAME with a network namespace"


class Memif:
    """Negotiates memif sockets; whoever answers listens.

    ``inode_url``: the network namespace that this side brings along, in which names behind ``@`` are looked
    up. ``folder``: where this side listens, a directory; empty: it lets others listen. ``socketfile``: the
    very socket instead of one for each connection. ``abstract``: listen at a name and not at a file.
    Without these three nobody listens here, and sockets are handed on from an endpoint to its client.
    """

    type = MEMIF
    cls = LOCAL
    payloads: tuple[str, ...] = PAYLOADS

    def __init__(
        self, *, inode_url: str = "", folder: str = "", socketfile: str = "", abstract: bool = False
    ) -> None:
        self._inode_url = inode_url
        self._folder = folder
        self._socketfile = socketfile
        self._abstract = abstract
        self.hands_on = not (folder or socketfile or abstract)

    def offer(self, connection: Connection) -> Mechanism:  # noqa: ARG002 - the face of a mechanism
        """Return LOCAL MEMIF with the namespace that this side brings along."""
        mechanism = Mechanism(cls=LOCAL, type=MEMIF)
        if self._inode_url:
            mechanism.parameters[INODE_URL] = self._inode_url
        return mechanism

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with the socket at which this side listens, whatever the other one named."""
        mechanism = copy_of(offered)
        parameters = mechanism.parameters
        parameters.pop(SOCKET_FILE, None)
        _number(parameters.get(MEMIF_ID, ""))
        if not self.hands_on:
            name = parameters[SOCKET_FILE] = self._listening(connection)
            _check(name)
            if not name.startswith("@"):
                parameters[INODE_URL] = file_url(name)
            elif self._inode_url:
                parameters[INODE_URL] = self._inode_url
        return mechanism

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> MemifPort:
        """Return the socket: on side ENDPOINT the user listens, on side CLIENT whoever wires."""
        parameters = mechanism.parameters
        socket = socket_of(mechanism)
        if not socket and side is Side.CLIENT and self.hands_on:
            return MemifPort("", mtu=connection.context.MTU)
        if not socket:
            raise Invalid(f"the {side.value}'s MEMIF mechanism {unreachable(mechanism)}", remedy=_REMEDY)
        _check(socket)
        ethernet = connection.context.ethernet_context
        return MemifPort(
            socket,
            netns=(file_path(parameters.get(INODE_URL, "")) or "") if socket.startswith("@") else "",
            listens=side is Side.ENDPOINT,
            id=_number(parameters.get(MEMIF_ID, "")),
            mtu=connection.context.MTU,
            mac=ethernet.src_mac if side is Side.CLIENT else ethernet.dst_mac,
        )

    def hand_on(self, client: Mechanism, endpoint: Mechanism) -> bool:
        """Give the client's mechanism the endpoint's socket; True, since every socket can be handed on.

        A file goes by its descriptor, a name behind ``@`` with the namespace in which it is looked up.
        """
        client.parameters.pop(INODE_URL, None)
        for key in (SOCKET_FILE, INODE_URL, MEMIF_ID):
            if key in endpoint.parameters:
                client.parameters[key] = endpoint.parameters[key]
        return True

    def describe(self, mechanism: Mechanism) -> str:
        """Return ``MEMIF/`` and the socket."""
        return f"{MEMIF}/{mechanism.parameters.get(SOCKET_FILE, '')}"

    def _listening(self, connection: Connection) -> str:
        if self._socketfile:
            return self._socketfile
        if self._abstract:
            return f"@memif/{short_name(connection.id)}/memif.socket"
        return posixpath.join(self._folder, f"{short_name(connection.id)}.memif")


def _check(name: str) -> None:
    problem = socket_problem(name)
    if problem:
        raise Invalid(problem, remedy=_REMEDY)


def _number(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) >= 1 << 32:
        raise Invalid(
            f"the MEMIF parameter {MEMIF_ID} has {text[:40]!r}, which is no number of 32 bits",
            remedy="leave it out: there is one interface on each socket",
        )
    return int(text)
