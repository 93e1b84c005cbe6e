"""An endpoint of one's own: addresses and a name server for the teams that it knows, a refusal for others."""

from __future__ import annotations

from dataclasses import dataclass

from nsmesh.core.errors import Refused
from nsmesh.endpoints.base import Endpoint
from nsmesh.endpoints.icmp_responder import ResponderOptions
from nsmesh.model.messages import Connection, DNSConfig


@dataclass(frozen=True, kw_only=True)
class HelloOptions(ResponderOptions):
    """Those of the ICMP responder (addresses and more), and the guests."""

    teams: tuple[str, ...] = ()
    """Values of the label "team" that are let in."""


class Hello(Endpoint):
    """Lets clients in by their label "team", and gives each team a DNS domain of its own."""

    Options = HelloOptions

    async def granted(self, connection: Connection) -> None:
        """Look at a connection that is about to be granted or refreshed."""
        team = connection.labels.get("team", "")
        if team not in self.options.teams:
            known = ", ".join(self.options.teams)
            raise Refused(
                f"{self.name} does not know the team '{team}'", remedy=f"ask with ?team= one of {known}"
            )
        domain = DNSConfig(dns_server_ips=["172.16.3.53"], search_domains=[f"{team}.example"])
        if domain not in connection.context.dns_context.configs:
            connection.context.dns_context.configs.append(domain)
