"""What a host that joined keeps on disk: which mesh it is of, its key and SVID, and whom it believes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from nsmesh.core.errors import Invalid, Refused
from nsmesh.security.svid import Svid
from nsmesh.security.verify import Bundle
from nsmesh.standalone.joining import files
from nsmesh.standalone.joining.place import Address, Place


@dataclass(slots=True)
class Record:
    """One membership.

    ``ip``, ``port``: this host; ``first_*``: the first host. ``svid`` is key and chain, ``bundle`` the
    authorities, both PEM: written with all else in one file, so that they always belong together.
    ``removed``: the first host has said that this node is none any more.
    """

    name: str
    mesh: str
    ip: str
    port: int
    first_name: str
    first_ip: str
    first_port: int
    registry_url: str
    svid: str
    bundle: str
    removed: bool = False

    @property
    def place(self) -> Place:
        """Where this host is."""
        return Place(self.name, Address(self.ip, self.port))

    @property
    def first(self) -> Place:
        """Where the first host is."""
        return Place(self.first_name, Address(self.first_ip, self.first_port))

    def keys(self, trust_domain: str) -> tuple[Svid, Bundle]:
        """Return SVID and bundle; raises Invalid for what is damaged."""
        pem = self.svid.encode()
        try:
            key = load_pem_private_key(pem, None)
            chain = tuple(one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(pem))
        except (ValueError, TypeError) as error:
            raise Invalid("the identity of this node is damaged", remedy="let it join again") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Invalid("the key of this node is no EC key", remedy="let it join again")
        return Svid(chain, key), Bundle.from_pem(trust_domain, self.bundle.encode())

    def put(self, svid: Svid, bundle: Bundle) -> None:
        """Take a new identity."""
        self.svid = svid.pem().decode()
        self.bundle = pem_of(bundle)

    def save(self, path: Path) -> None:
        """Write it; raises Unavailable."""
        files.write(path, asdict(self))


def pem_of(bundle: Bundle) -> str:
    """Return the authorities as PEM."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in bundle.authorities).decode()


def load(path: Path) -> Record | None:
    """Return the membership of this host, or None; raises Invalid."""
    found = files.read(path)
    if found is None:
        return None
    try:
        return Record(**found)
    except TypeError as error:
        raise Invalid(
            f"{path} is damaged: {error}", remedy="remove it, and let this host join again"
        ) from error


def check_up(path: Path, *, listens: bool = False) -> Record:
    """Return the membership with which this host may come up; raises Refused where it may not.

    ``listens``: whether other hosts were to join here.
    """
    known = load(path)
    if known is None:
        raise Invalid(f"{path} is gone", remedy="let this host join again")
    if known.removed:
        raise Refused(
            f"this host was taken out of the mesh {known.mesh}",
            remedy=f"let it join again: nsm join {known.first.address} --token TOKEN; "
            "or forget that it did: nsm down --purge",
        )
    if listens:
        raise Refused(
            f"this host joined the mesh of {known.first_name}: others join there",
            remedy=f"nsm up, without --listen; or leave that mesh first: nsm --mesh {known.mesh} leave",
        )
    return known
