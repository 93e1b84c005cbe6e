"""The identities of a mesh on one host: its own CA behind a SPIFFE Workload API, one ID per endpoint."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core.clock import Clock
from nsmesh.core.errors import Invalid, NotFound
from nsmesh.core.process import start_ticks
from nsmesh.datapath import netns
from nsmesh.security.authority_files import read_private
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import DEFAULT_TEMPLATE, Entries, Entry, Template
from nsmesh.security.workload_api import WorkloadApi
from nsmesh.standalone.joining.member import Member
from nsmesh.standalone.joining.names import first_id, node_id
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.processes import Started

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
    """Who is who: the daemon and its roles by their processes, the others by their network namespaces."""

    def __init__(self, trust_domain: str, entries: Entries, *, below: str = "") -> None:
        self.trust_domain = trust_domain
        self._below = below
        self._entries = entries
        self._known: dict[str, Entry] = {}
        self._early: dict[Started, Callable[[], None]] = {}

    def add(self, name: str, namespace: str) -> None:
        """Give whoever lives in the namespace at a path an ID of its own: ``spiffe://DOMAIN/ns/NAME``.

        On a host that joined it is below the node's: ``spiffe://DOMAIN/node/NODE/ns/NAME``.
        """
        _, inode = netns.identity(namespace)
        self.drop(name)
        entry = Entry(
            frozenset({f"nsm:netns:{inode}"}), f"spiffe://{self.trust_domain}{self._below}/ns/{name}"
        )
        self._known[name] = entry
        self._entries.register(entry)

    def go_on_with(self, roles: Mapping[str, Started], spaces: Mapping[str, str]) -> None:
        """Know who lives on from a killed daemon before anybody asks: else they were told to be others.

        ``roles`` by name, ``spaces``: paths of namespaces by the name of who lives there.
        """
        for name, path in spaces.items():
            self.add(name, path)
        for name, process in roles.items():
            self._early[process] = self.add_process(name, process)

    def add_process(self, name: str, process: Started) -> Callable[[], None]:
        """Give a role that runs as a process of its own an ID: ``spiffe://DOMAIN/nsm/NAME``.

        To be called before the loop runs again after the start of the process: until then nobody can have
        been asked for an ID. Returns what takes it back. A later process of the same pid started later.
        """
        selectors = frozenset({f"nsm:pid:{process.pid}", f"nsm:started:{process.ticks}"})
        early = self._early.pop(process, None)
        if early is not None:
            return early
        return self._entries.register(
            Entry(selectors, f"spiffe://{self.trust_domain}{self._below}/nsm/{name}")
        )

    def drop(self, name: str) -> None:
        """Take an ID back; what was issued for it ends by itself."""
        entry = self._known.pop(name, None)
        if entry is not None:
            self._entries.remove(entry)


def opened_authority(paths: MeshPaths, clock: Clock) -> CertificateAuthority:
    """Return the CA of a mesh, kept in the state directory.

    Its keys are encrypted where ``NSM_CA_PASSPHRASE_FILE`` says so. Raises Refused, NotFound or Invalid where
    its files cannot be used.
    """
    secret = passphrase(os.environ)
    return CertificateAuthority.open(paths.state / "ca", paths.trust_domain, passphrase=secret, clock=clock)


@asynccontextmanager
async def running_identities(
    paths: MeshPaths,
    clock: Clock,
    authority: CertificateAuthority | Member,
    before: Callable[[Identities], None] = lambda _identities: None,
) -> AsyncIterator[Identities]:
    """Serve the Workload API of a mesh while the block runs.

    ``before`` is called before anybody can ask.

    ``authority`` issues: our own CA, or the membership of a host that joined.
    """
    domain = paths.trust_domain
    process = frozenset({f"nsm:pid:{os.getpid()}", f"nsm:started:{start_ticks(os.getpid())}"})
    if isinstance(authority, Member):
        own = Entry(process, node_id(domain, authority.place.name))
        below = own.spiffe_id.removeprefix(f"spiffe://{domain}")
        entries = Entries(own, template=Template(f"{own.spiffe_id}/uid/{{uid}}", domain))
        authority.changed = entries.announce
    else:
        below = ""
        entries = Entries(Entry(process, first_id(domain)), template=Template(DEFAULT_TEMPLATE, domain))
    identities = Identities(domain, entries, below=below)
    before(identities)
    async with served_workload_api(WorkloadApi(authority, entries, clock=clock), paths.workload_api):
        yield identities
