"""The identities of a mesh on one host: its own CA behind a SPIFFE Workload API, one ID per endpoint."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core.clock import Clock
from nsmesh.core.errors import Invalid, NotFound
from nsmesh.datapath import netns
from nsmesh.security.authority_files import read_private
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import DEFAULT_TEMPLATE, Entries, Entry, Template
from nsmesh.security.workload_api import WorkloadApi
from nsmesh.standalone.paths import MeshPaths

PASSPHRASE_FILE = "NSM_CA_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
"""Variable that names a file, readable by its owner alone, whose first line encrypts the keys of the CA."""


def passphrase(environment: Mapping[str, str]) -> bytes | None:
    """Return what the keys of the CA are encrypted with, None where nobody wants that.

    Raises NotFound, Refused (others may read the file) or Invalid (it says nothing).
    """
    name = environment.get(PASSPHRASE_FILE, "").strip()
    if not name:
        return None
    try:
        found = read_private(Path(name)).partition(b"\n")[0].strip()
    except NotFound:
        raise NotFound(
            f"{PASSPHRASE_FILE}: there is no file {name}", remedy="write it, readable by its owner alone"
        ) from None
    if not found:
        raise Invalid(f"{PASSPHRASE_FILE}: the first line of {name} is empty", remedy="write a passphrase")
    return found


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

    Its keys are encrypted where ``NSM_CA_PASSPHRASE_FILE`` says so. Raises Refused, NotFound or Invalid where
    the CA's files cannot be used.
    """
    domain = paths.trust_domain
    secret = passphrase(os.environ)
    authority = CertificateAuthority.open(paths.state / "ca", domain, passphrase=secret, clock=clock)
    own = Entry(frozenset({f"nsm:pid:{os.getpid()}"}), f"spiffe://{domain}/nsm/mesh")
    entries = Entries(own, template=Template(DEFAULT_TEMPLATE, domain))
    async with served_workload_api(WorkloadApi(authority, entries, clock=clock), paths.workload_api):
        yield Identities(domain, entries)
