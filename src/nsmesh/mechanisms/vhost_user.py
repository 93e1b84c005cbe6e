"""VHOST_USER: the wire ends in a socket, by which a virtual machine shares the memory of its queues."""

from __future__ import annotations

import posixpath

from nsmesh.core.errors import Invalid
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import INODE_URL, file_url
from nsmesh.model.messages import LOCAL, PAYLOADS, VHOST_USER, Connection, Mechanism
from nsmesh.model.sockets import SOCKET_FILE, short_name, socket_of, socket_problem, unreachable
from nsmesh.model.wire import VhostUserPort
from nsmesh.model.wiring import Side

MODE = "mode"
"""What the user does at the socket: ``server`` (listen, and whoever wires comes again) or ``client``."""
SERVER, CLIENT = "server", "client"
QUEUES = "queues"
"""Pairs of queues; 1 where it is absent."""
QUEUE_LIMIT = 64
_REMEDY = "set the VHOST_USER parameter socketfile to a short absolute path that the forwarder can open"


class VhostUser:
    """Negotiates vhost-user sockets, which are always files.

    ``socketfile``: where this side's machine has its socket; ``folder``: a directory for one per connection.
    Both empty: whoever asks or answers names it; with mode ``client`` whoever wires does. ``mode`` says what
    the machine does there, ``queues`` how many pairs of queues it has.
    """

    type = VHOST_USER
    cls = LOCAL
    payloads: tuple[str, ...] = PAYLOADS

    def __init__(
        self, *, socketfile: str = "", folder: str = "", mode: str = SERVER, queues: int = 1
    ) -> None:
        self._socketfile = socketfile
        self._folder = folder
        self._mode = mode
        self._queues = queues

    def offer(self, connection: Connection) -> Mechanism:  # noqa: ARG002 - the face of a mechanism
        """Return LOCAL VHOST_USER with the socket of this side's machine, where it has one."""
        mechanism = Mechanism(cls=LOCAL, type=VHOST_USER)
        if self._socketfile:
            self._name(mechanism, self._socketfile)
        elif self._mode == CLIENT:
            mechanism.parameters[MODE] = CLIENT
            mechanism.parameters[QUEUES] = str(self._queues)
        return mechanism

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with a socket, a mode and a number of queues; what is agreed on stays."""
        mechanism = copy_of(offered)
        given = mechanism.parameters
        # where whoever wires listens, it says where: it makes no file at a path that others choose
        listens = bool(self._folder) and given.get(MODE, "") == CLIENT
        if listens:
            given[SOCKET_FILE] = posixpath.join(self._folder, f"{short_name(connection.id)}.vhost")
        elif not given.get(SOCKET_FILE, ""):
            if not self._socketfile and not self._folder:
                raise Invalid("the VHOST_USER mechanism names no socket", remedy=_REMEDY)
            self._name(mechanism, self._own(connection))
        elif given[SOCKET_FILE] == self._own(connection) and given.get(MODE, "") == SERVER:
            # a forwarder that has started again has the descriptor of an earlier process no more
            given[INODE_URL] = file_url(given[SOCKET_FILE])
        _checked(mechanism)
        return mechanism

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> VhostUserPort:
        """Return the socket, and who listens there."""
        mode, queues = _checked(mechanism)
        socket = socket_of(mechanism) if mode == SERVER else mechanism.parameters[SOCKET_FILE]
        if not socket:
            raise Invalid(f"the {side.value}'s VHOST_USER mechanism {unreachable(mechanism)}", remedy=_REMEDY)
        ethernet = connection.context.ethernet_context
        return VhostUserPort(
            socket,
            listens=mode == SERVER,
            queues=queues,
            mtu=connection.context.MTU,
            mac=ethernet.src_mac if side is Side.CLIENT else ethernet.dst_mac,
        )

    def describe(self, mechanism: Mechanism) -> str:
        """Return ``VHOST_USER/`` and the socket."""
        return f"{VHOST_USER}/{mechanism.parameters.get(SOCKET_FILE, '')}"

    def _own(self, connection: Connection) -> str:
        return self._socketfile or posixpath.join(self._folder, f"{short_name(connection.id)}.vhost")

    def _name(self, mechanism: Mechanism, path: str) -> None:
        mechanism.parameters[SOCKET_FILE] = path
        mechanism.parameters[MODE] = self._mode
        mechanism.parameters[QUEUES] = str(self._queues)
        if self._mode == SERVER:
            mechanism.parameters[INODE_URL] = file_url(path)


def _checked(mechanism: Mechanism) -> tuple[str, int]:
    """Return mode and queues of a mechanism; raises Invalid for one that cannot be wired."""
    parameters = mechanism.parameters
    name, mode = parameters.get(SOCKET_FILE, ""), parameters.get(MODE, "") or SERVER
    problem = socket_problem(name)
    if not problem and name.startswith("@"):
        problem = f"the vhost-user socket {name} is no file, and a machine's monitor opens files alone"
    if not problem and mode not in {SERVER, CLIENT}:
        problem = f"the VHOST_USER parameter {MODE} has {mode[:40]!r}, and is {SERVER} or {CLIENT}"
    text = parameters.get(QUEUES, "") or "1"
    if not problem and not (
        text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= QUEUE_LIMIT
    ):
        problem = f"the VHOST_USER parameter {QUEUES} has {text[:40]!r}, no number from 1 to {QUEUE_LIMIT}"
    if problem:
        raise Invalid(problem, remedy=_REMEDY)
    return mode, int(text)
