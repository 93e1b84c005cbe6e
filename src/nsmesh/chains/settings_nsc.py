"""Settings of clients. They are apart from those of other roles: a pod waits for its client to start."""

from __future__ import annotations

from dataclasses import dataclass

from nsmesh.chains.settings_common import SOCKET, Common, Placed
from nsmesh.model.settings import Seconds


@dataclass(frozen=True, kw_only=True)
class Asks(Placed, Common):
    """What every client reads."""

    name: str = "nsc"
    """Name of this client in paths; the i-th service gets the connection id NAME-i."""
    connect_to: str = SOCKET
    """The manager of this node."""
    dial_timeout: Seconds = Seconds(5)
    """How long a dial may take."""
    request_timeout: Seconds = Seconds(15)
    """How long one Request may take before it is tried again."""
    network_services: tuple[str, ...] = ()
    """What to ask for: kernel://SERVICE/INTERFACE?label=value, ..."""
    netns: str = ""
    """Namespace in which the wires end, as a path; empty: this process's own."""


@dataclass(frozen=True, kw_only=True)
class NscInitSettings(Asks):
    """The client of an init container: asks for services, and ends when all are there."""

    name: str = "cmd-nsc-init"
    """Name of this client in paths; the i-th service gets the connection id NAME-i."""


@dataclass(frozen=True, kw_only=True)
class NscSettings(Asks):
    """The client: asks for services and keeps their wires alive."""

    local_dns_server_enabled: bool = True
    """Whether names of wires are served by a DNS server of this client; it needs NSM_RESOLVER_FILE."""
    local_dns_server_address: str = "127.0.0.1:53"
    """Where it listens; the port is 53, as a resolver file names none."""
    resolver_file: str = ""
    """File that names it while wires bring DNS servers; set in the image: /etc/resolv.conf. Empty: none."""
    up_socket: str = ""
    """Abstract unix socket (@NAME) that listens once all wires are up, for whoever waits; empty: none."""
    liveness_check_enabled: bool = True
    """Whether the wire itself is probed, to tell a dead path from a dead control plane."""
    liveness_check_interval: Seconds = Seconds(0.2)
    """Time between two probes."""
    liveness_check_timeout: Seconds = Seconds(1)
    """Time without an answer after which the path counts as dead."""
    liveness_check_count: int = 1
    """How many probes in a row have to find nothing before it does."""
