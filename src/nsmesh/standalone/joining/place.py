"""Where a host of a mesh is among others: its node's name, its address, its ports."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.model.names import name_problem, name_suggestion

PORT = 5000
"""The mesh port where nothing else is said; the manager of a node has the next one, the registry the next."""
_HIGHEST = 65533


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and the first of a host's ports."""

    ip: str
    port: int

    def __str__(self) -> str:
        """Return IP:PORT."""
        return _joined(self.ip, self.port)

    @property
    def mesh(self) -> str:
        """URL at which a host joins, and nodes say that they live."""
        return f"tcp://{self}"

    @property
    def manager(self) -> str:
        """URL of the manager."""
        return f"tcp://{_joined(self.ip, self.port + 1)}"

    @property
    def registry(self) -> str:
        """URL of the registry, on the first host."""
        return f"tcp://{_joined(self.ip, self.port + 2)}"


@dataclass(frozen=True, slots=True)
class Place:
    """One host of a mesh: the name of its node, and where others reach it."""

    name: str
    address: Address


def _joined(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def parse_address(text: str) -> Address:
    """Read ``IP`` or ``IP:PORT`` (``[IPv6]:PORT``); raises Invalid."""
    wrong = Invalid(f"{text!r} is no address to join at", remedy="write IP or IP:PORT, such as 10.0.0.1:5000")
    host, colon, port = text.strip().rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):  # no port
        host, port = text.strip(), str(PORT)
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise wrong from None
    if not (port.isascii() and port.isdecimal()) or not 1024 <= int(port) <= _HIGHEST:
        raise Invalid(f"{text!r} has no port that can be used", remedy=f"give one from 1024 to {_HIGHEST}")
    if ip.is_unspecified or ip.is_multicast:
        raise Invalid(
            f"{ip} is no address of one host", remedy="give the address at which the others reach this host"
        )
    return Address(str(ip), int(port))


def own_address(towards: Address) -> str:
    """Return the address of this host from which packets to ``towards`` go; raises Unavailable."""
    family = socket.AF_INET6 if ":" in towards.ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards.ip, towards.port))  # sends nothing
        except OSError as error:
            raise Unavailable(
                f"this host has no way to {towards.ip}: {error.strerror}",
                remedy="check its links and routes: ip route",
            ) from error
        return str(probe.getsockname()[0])


def node_name(wanted: str) -> str:
    """Return the name of this host's node: what is wanted, else the host name. Raises Invalid."""
    name = wanted or name_suggestion(socket.gethostname().partition(".")[0])
    if problem := name_problem(name):
        raise Invalid(problem, remedy=f"for example: --name {name_suggestion(name) or 'host-1'}")
    return name
