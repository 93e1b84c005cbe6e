"""The built-in CA: makes a trust domain of its own, and issues short-lived SVIDs.

Its state is a folder (mode 0700) with ``authority-N.pem`` for each authority and ``active``, which holds the
number of the one that signs and since when (seconds since the epoch). An authority is replaced in three
steps, long before it ends, so that no peer meets a certificate whose authority it does not know:

1. *prepare*: a new authority joins the bundle, and signs nothing;
2. *activate*: it signs from now on; the old one stays in the bundle;
3. *retire*: the old one leaves when nothing that it signed can be valid any more.

:meth:`CertificateAuthority.maintain` takes the step that is due.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Invalid, Refused
from nsmesh.security.authority_files import (
    Authority,
    encrypted,
    load,
    read_private,
    save,
    write_private,
)
from nsmesh.security.certificates import BACKDATE, make_authority, make_leaf
from nsmesh.security.spiffe import SpiffeId, check_trust_domain
from nsmesh.security.svid import Svid
from nsmesh.security.verify import Bundle

log = structlog.get_logger()

TTL = 3600.0
"""Seconds that an SVID is valid unless told otherwise."""
MAX_TTL = 24 * 3600.0
"""Longest life of an SVID, seconds; a retired authority stays known that long."""
LIFETIME = 365 * 24 * 3600.0
"""Seconds that an authority is valid unless told otherwise."""
_PREPARE, _ACTIVATE = 0.5, 0.75

_FILE = re.compile(r"authority-(\d+)\.pem")


class CertificateAuthority:
    """The CA of one trust domain. Opens its folder, or makes it; see :meth:`open`."""

    def __init__(
        self, folder: Path, trust_domain: str, *, passphrase: bytes | None, lifetime: float, clock: Clock
    ) -> None:
        self.folder = folder
        self.trust_domain = check_trust_domain(trust_domain)
        self._passphrase = passphrase
        self._lifetime = lifetime
        self._clock = clock
        self._authorities: list[Authority] = []
        self._active = 0
        self._since = 0.0

    @classmethod
    def open(
        cls,
        folder: Path,
        trust_domain: str,
        *,
        passphrase: bytes | None = None,
        lifetime: float = LIFETIME,
        clock: Clock | None = None,
    ) -> CertificateAuthority:
        """Read the CA back from ``folder``, or make a new one where the folder holds none.

        Raises Refused for wrong permissions, passphrase or trust domain, NotFound for a file that is
        missing, and Invalid for one that is damaged.
        """
        if lifetime < 4 * MAX_TTL:
            raise Invalid(f"a CA of {lifetime:.0f} s is too short-lived", remedy=f"give {4 * MAX_TTL:.0f} s")
        found = cls(
            folder, trust_domain, passphrase=passphrase, lifetime=lifetime, clock=clock or SystemClock()
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with found.locked():
            if not found.numbers() and not (folder / "active").exists():
                found.prepare()
                found.activate()
            else:
                found.reload()
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the folder meanwhile."""
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def numbers(self) -> list[int]:
        """Return the numbers of the authorities on disk, oldest first."""
        names = (_FILE.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def reload(self) -> None:
        """Read the folder again, as after a restart; raises what :meth:`open` raises."""
        authorities = [load(self._path(number), number, self._passphrase) for number in self.numbers()]
        text = read_private(self.folder / "active").decode(errors="replace").strip()
        number, _, since = text.partition(" ")
        active = [one for one in authorities if str(one.number) == number]
        if not active or not since.isdecimal():
            raise Invalid(
                f"{self.folder}/active says {text[:40]!a}, which names no authority that is there",
                remedy="restore the folder from a backup, or remove it to begin a new CA",
            )
        for authority in authorities:
            self._check_domain(authority)
        self._authorities, self._active, self._since = authorities, active[0].number, float(since)
        self._encrypt()

    def _encrypt(self) -> None:
        """Encrypt the keys of files that were written without the passphrase."""
        for authority in self._authorities:
            path = self._path(authority.number)
            if self._passphrase and not encrypted(path):
                save(path, authority, self._passphrase)
                log.info("CA: keys encrypted", trust_domain=self.trust_domain, authority=authority.number)

    def _check_domain(self, authority: Authority) -> None:
        names = authority.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if uris != [f"spiffe://{self.trust_domain}"]:
            raise Refused(
                f"the CA in {self.folder} is that of {', '.join(uris)}, not of {self.trust_domain}",
                remedy="use its own trust domain, or another folder",
            )

    def _path(self, number: int) -> Path:
        return self.folder / f"authority-{number}.pem"

    @property
    def active(self) -> Authority:
        """The authority that signs."""
        return next(one for one in self._authorities if one.number == self._active)

    @property
    def authorities(self) -> tuple[Authority, ...]:
        """All authorities that peers shall trust, oldest first."""
        return tuple(self._authorities)

    def bundle(self) -> Bundle:
        """Return what peers need to verify our SVIDs."""
        return Bundle(self.trust_domain, tuple(one.certificate for one in self._authorities))

    def prepare(self) -> Authority:
        """Add an authority to the bundle that does not sign yet."""
        number = max([0, *(one.number for one in self._authorities)]) + 1
        authority = make_authority(self.trust_domain, number, self._clock.now(), self._lifetime)
        save(self._path(number), authority, self._passphrase)
        self._authorities.append(authority)
        log.info("CA: authority prepared", trust_domain=self.trust_domain, authority=number)
        return authority

    def activate(self) -> None:
        """Let the newest authority sign from now on."""
        self._let_sign(self._authorities[-1])

    def _let_sign(self, authority: Authority) -> None:
        since = int(self._clock.now())
        write_private(self.folder / "active", f"{authority.number} {since}\n".encode())
        self._active, self._since = authority.number, since
        log.info("CA: authority active", trust_domain=self.trust_domain, authority=authority.number)

    def retire(self) -> None:
        """Drop all authorities older than the active one. Call it when nothing of theirs is valid."""
        for authority in [one for one in self._authorities if one.number < self._active]:
            self._path(authority.number).unlink(missing_ok=True)
            self._authorities.remove(authority)
            log.info("CA: authority retired", trust_domain=self.trust_domain, authority=authority.number)

    @property
    def valid(self) -> bool:
        """Whether what signs is valid now: where the clock was set, it may have ended, or not have begun."""
        return _begun(self.active, self._clock.now()) and self._age(self.active) < 1

    def _age(self, authority: Authority) -> float:
        """Return how much of its life is over; less than 0, or more than 1, where the clock was set."""
        return (self._clock.now() - _begin(authority)) / self._lifetime

    def maintain(self) -> bool:
        """Take the step of rotation that is due now; returns whether the bundle or the signer changed.

        Where the clock was set back behind the first second of what signs, one that everybody knows already
        signs again, if there is one. What is of the future by this clock stays: it may be set once more.
        """
        with self.locked():
            before = (self._active, len(self._authorities))
            now = self._clock.now()
            begun = [one for one in self._authorities if _begun(one, now)]
            usable = [one for one in begun if self._age(one) < _ACTIVATE]
            early, age = self.active not in begun, self._age(self.active)
            if early and usable:
                self._let_sign(usable[-1])
            elif early or (begun[-1] is self.active and age >= _PREPARE):
                self.prepare()
            elif begun[-1] is not self.active and age >= _ACTIVATE:
                self._let_sign(begun[-1])
            elif now >= self._since + MAX_TTL:  # what an old authority signed last has ended
                self.retire()
            return before != (self._active, len(self._authorities))

    def issue(self, spiffe_id: str, ttl: float = TTL, *, dns_names: tuple[str, ...] = ()) -> Svid:
        """Return a new SVID with a new key, valid for ``ttl`` seconds, 24 h at most.

        Raises Invalid for an ID that is none, or is of another trust domain.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        return Svid((self.sign(key.public_key(), spiffe_id, ttl, dns_names=dns_names),), key)

    async def svid(self, spiffe_id: str, ttl: float) -> Svid:
        """Return a new SVID: :meth:`issue`, as whoever has to ask far away does it too."""
        return self.issue(spiffe_id, ttl)

    def sign(
        self,
        key: ec.EllipticCurvePublicKey,
        spiffe_id: str,
        ttl: float = TTL,
        *,
        dns_names: tuple[str, ...] = (),
    ) -> bytes:
        """Return the certificate (DER) of an SVID for somebody's key; raises what :meth:`issue` raises."""
        identity = SpiffeId.parse(spiffe_id)
        if identity.trust_domain != self.trust_domain or not identity.path:
            raise Invalid(
                f"the CA of {self.trust_domain} cannot issue {spiffe_id}",
                remedy=f"ask for an ID like spiffe://{self.trust_domain}/name",
            )
        if not 0 < ttl <= MAX_TTL:
            raise Invalid(
                f"an SVID cannot be valid for {ttl:.0f} s", remedy=f"ask for {MAX_TTL:.0f} s or less"
            )
        leaf = make_leaf(self.active, identity, key, (self._clock.now(), ttl), dns_names)
        return leaf.public_bytes(Encoding.DER)


def _begin(authority: Authority) -> float:
    return authority.certificate.not_valid_before_utc.timestamp() + BACKDATE


def _begun(authority: Authority, now: float) -> bool:
    return now >= _begin(authority) - BACKDATE
