"""What a client's settings ask for: its wires, and the Request of each."""

from __future__ import annotations

from dataclasses import dataclass

from nsmesh.chains.settings_nsc import Asks
from nsmesh.core.errors import Invalid
from nsmesh.core.mechanism import CLIENT_INTERFACE, MechanismPlugin, by_type, note_interface
from nsmesh.mechanisms.kernel import NAME, OWN_NAMESPACE, Kernel
from nsmesh.mechanisms.memif import Memif
from nsmesh.mechanisms.noop import Noop
from nsmesh.mechanisms.vhost_user import CLIENT, VhostUser
from nsmesh.model.fileurl import INODE_URL
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest, State
from nsmesh.model.nsurl import NetworkServiceUrl, NsUrlError, parse_list

PAUSE = 0.2
"""Seconds between two tries."""


def wanted_services(settings: Asks) -> list[NetworkServiceUrl]:
    """Return what the settings ask for; raises Invalid where that is nothing, or cannot be read."""
    try:
        urls = parse_list(",".join(settings.network_services))
    except NsUrlError as error:
        raise Invalid(f"NSM_NETWORK_SERVICES: {error}") from error
    if not urls:
        raise Invalid(
            "NSM_NETWORK_SERVICES names no service", remedy="set it: kernel://SERVICE/INTERFACE?label=value"
        )
    return urls


@dataclass(frozen=True, slots=True)
class Wanted:
    """One wire: its connection id, what is asked for, and the mechanism that is offered."""

    id: str
    url: NetworkServiceUrl
    offer: Mechanism

    @classmethod
    def of(cls, settings: Asks, number: int, url: NetworkServiceUrl) -> Wanted:
        """Return the ``number``-th wire; raises Invalid for a mechanism that a client cannot offer."""
        place = f"file://{settings.netns}" if settings.netns else OWN_NAMESPACE
        plugins: list[MechanismPlugin] = [
            Kernel(inode_url=place, name=url.interface),
            Memif(inode_url=place),
            VhostUser(mode=CLIENT),
            Noop(),
        ]
        plugin = by_type(plugins).get(url.mechanism)
        connection = Connection(id=f"{settings.name}-{number}", network_service=url.service)
        offer = plugin.offer(connection) if plugin else None
        if offer is None:
            raise Invalid(
                f"NSM_NETWORK_SERVICES: this client offers no mechanism {url.mechanism}",
                remedy="use kernel://",
            )
        return cls(connection.id, url, offer)

    def request(self, name: str, held: Connection | None, *, reselect: bool) -> NetworkServiceRequest:
        """Return the Request; of the connection that the manager holds, where there is one."""
        request = NetworkServiceRequest(connection=held, mechanism_preferences=[self.offer])
        connection = request.connection
        if held is None:
            connection.id = self.id
            connection.network_service = self.url.service
            connection.labels.update(self.url.labels)
            connection.path.path_segments.add(name=name, id=self.id)
        connection.state = State.UP
        if reselect:
            connection.state = State.RESELECT_REQUESTED
            connection.ClearField("mechanism")
            connection.network_service_endpoint_name = ""
            connection.payload = ""
        elif held is not None and INODE_URL in self.offer.parameters:
            connection.mechanism.parameters[INODE_URL] = self.offer.parameters[INODE_URL]
        interface = self.offer.parameters.get(NAME, "")
        note_interface(connection, CLIENT_INTERFACE, f"{self.offer.type}/{interface}".rstrip("/"))
        return request
