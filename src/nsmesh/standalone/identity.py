"""The identities of a mesh on one host: its own CA behind a SPIFFE Workload API, one ID per endpoint."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core.clock import Clock
from nsmesh.datapath import netns
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import DEFAULT_TEMPLATE, Entries, Entry, Template
from nsmesh.security.workload_api import WorkloadApi
from nsmesh.standalone.paths import MeshPaths


class Identities:
    """Who is who: the daemon by its pid, endpoints and workloads by their network namespace."""

    def __init__(self, trust_domain: str, entries: Entries) -> None:
        self.trust_domain = trust_domain
        self._entries = entries
        self._known: dict[str, Entry] = {}

    def add(self, name: str, namespace: str) -> None:
        """Give whoever lives in the namespace at a path an ID of its own: ``spiffe://DOMAIN/ns/NAME``."""
        _, inode = netns.identity(namespace)
        self.drop(name)
        entry = Entry(frozenset({f"nsm:netns:{inode}"}), f"spiffe://{self.trust_domain}/ns/{name}")
        self._known[name] = entry
        self._entries.register(entry)

    def drop(self, name: str) -> None:
        """Take an ID back; what was issued for it ends by itself."""
        entry = self._known.pop(name, None)
        if entry is not None:
            self._entries.remove(entry)


@asynccontextmanager
async def running_identities(paths: MeshPaths, clock: Clock) -> AsyncIterator[Identities]:
    """Serve the Workload API of a mesh while the block runs. The CA is kept in the state directory.

    Raises Refused, NotFound or Invalid where the CA's files cannot be used.
    """
    domain = paths.trust_domain
    authority = CertificateAuthority.open(paths.state / "ca", domain, clock=clock)
    own = Entry(frozenset({f"nsm:pid:{os.getpid()}"}), f"spiffe://{domain}/nsm/mesh")
    entries = Entries(own, template=Template(DEFAULT_TEMPLATE, domain))
    async with served_workload_api(WorkloadApi(authority, entries, clock=clock), paths.workload_api):
        yield Identities(domain, entries)
