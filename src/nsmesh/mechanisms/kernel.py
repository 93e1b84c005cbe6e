"""KERNEL: the wire ends in an interface in somebody's network namespace."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from nsmesh.core.errors import Invalid
from nsmesh.core.interface_names import InterfaceNames
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import INODE_URL, file_path
from nsmesh.model.messages import KERNEL, LOCAL, PAYLOADS, Connection, Mechanism
from nsmesh.model.names import interface_problem
from nsmesh.model.wire import KernelPort
from nsmesh.model.wiring import Side, kernel_port
from nsmesh.model.wiring_texts import WiringError

NAME = "name"
VLAN = "vlan"
UNNUMBERED = "unnumbered"
"""Our own parameter: ``true`` leaves that side's interface without anything of IP."""

OWN_NAMESPACE = "file:///proc/thread-self/ns/net"
"""The namespace of the thread that hands it over; it must travel as a descriptor."""


def namespace_path(url: str) -> str:
    """Return the path that ``url`` (``file:///run/netns/x``) can be opened by.

    Raises Invalid for other schemes, and for paths that mean another namespace to each who reads them.
    """
    if url.startswith("inode:"):
        raise Invalid(
            f"the descriptor of network namespace {url} did not arrive",
            remedy="descriptors travel over unix sockets only: check the hop in front of this one",
        )
    path = file_path(url)
    if path is None:
        raise Invalid(
            f"{url!r} is no URL of a network namespace",
            remedy="parameter inodeURL is file:///PATH or inode://DEV/INO",
        )
    if path.startswith(("/proc/self/ns/", "/proc/thread-self/ns/")):
        raise Invalid(
            f"{url} would mean the namespace of whoever reads it",
            remedy="pass a descriptor over a unix socket, or a path such as /run/netns/NAME",
        )
    return path


class Kernel:
    """Negotiates kernel interfaces.

    ``inode_url``: the namespace that this side brings along; a client offers it, an endpoint answers with
    it, a forwarder has none and takes what it is told. ``name``: the interface name that a client asks for;
    empty generates one. ``unnumbered``: this side stands transparently between others. ``resolve`` turns an
    inodeURL into a path that can be opened.
    """

    type = KERNEL
    cls = LOCAL
    payloads: tuple[str, ...] = PAYLOADS

    def __init__(
        self,
        *,
        inode_url: str = "",
        name: str = "",
        unnumbered: bool = False,
        resolve: Callable[[str], str] = namespace_path,
    ) -> None:
        self._inode_url = inode_url
        self._name = name
        self._unnumbered = unnumbered
        self._resolve = resolve
        self._names = InterfaceNames()

    def _fill(self, mechanism: Mechanism) -> None:
        if self._inode_url:
            mechanism.parameters[INODE_URL] = self._inode_url
        if self._unnumbered:
            mechanism.parameters[UNNUMBERED] = "true"

    def offer(self, connection: Connection) -> Mechanism:
        """Return LOCAL KERNEL with an interface name, and the namespace that this side brings along.

        A forwarder proposes the name too: after a restart it proposes the same, and the wire that stands is
        what the endpoint answers.
        """
        mechanism = Mechanism(cls=LOCAL, type=KERNEL)
        self._fill(mechanism)
        mechanism.parameters[NAME] = _checked(self._name or self._generated(connection, "offered"))
        return mechanism

    def accept(self, offered: Mechanism, connection: Connection) -> Mechanism:
        """Return ``offered`` with a namespace and an interface name."""
        mechanism = copy_of(offered)
        self._fill(mechanism)
        url = mechanism.parameters.get(INODE_URL, "")
        if not url:
            raise Invalid(
                "the KERNEL mechanism names no network namespace",
                remedy="set parameter inodeURL, such as file:///run/netns/NAME",
            )
        if urlsplit(url).scheme not in {"file", "inode"}:
            namespace_path(url)
        mechanism.parameters[NAME] = _checked(
            mechanism.parameters.get(NAME, "") or self._generated(connection, "accepted")
        )
        return mechanism

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> KernelPort:
        """Return the interface; without anything of IP where it is unnumbered or cut into VLANs."""
        parameters = mechanism.parameters
        numbered = parameters.get(UNNUMBERED, "") != "true" and _vlan(parameters.get(VLAN, "")) == 0
        name = _checked(parameters.get(NAME, ""))
        return kernel_port(
            connection, side, self._resolve(parameters.get(INODE_URL, "")), name, numbered=numbered
        )

    def rename(self, mechanism: Mechanism, connection: Connection) -> Mechanism:
        """Return ``mechanism`` with another generated name in place of one that is taken."""
        renamed = copy_of(mechanism)
        name = mechanism.parameters.get(NAME, "")
        renamed.parameters[NAME] = self._names.another(connection.network_service, name)
        return renamed

    def _generated(self, connection: Connection, half: str) -> str:
        # by whose connection it is: who asks again, after a restart too, or when this process was replaced by
        # one of another name, gets the same name; by the half, since a function in the middle of a chain has
        # both its interfaces under one id and in one namespace
        index = connection.path.index
        segments = connection.path.path_segments
        caller = segments[index - 1].id if 0 < index <= len(segments) else connection.id
        return self._names.name(connection.network_service, f"{caller} {half}")

    def describe(self, mechanism: Mechanism) -> str:
        """Return ``KERNEL/`` and the interface name."""
        return f"{KERNEL}/{mechanism.parameters.get(NAME, '')}"


def _checked(name: str) -> str:
    problem = interface_problem(name)
    if problem:
        raise Invalid(
            problem, remedy="set the KERNEL parameter name to at most 15 letters, digits, '-' or '.'"
        )
    return name


def _vlan(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or not text.isascii() or int(text) > 4095:
        raise WiringError(f"the KERNEL parameter vlan has {text!r}, which is no number from 0 to 4095")
    return int(text)
