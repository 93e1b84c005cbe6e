"""The built-in CA: what it issues, how it rotates, what it keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh.core.errors import Invalid, NotFound, Refused
from nsmesh.security.ca import LIFETIME, MAX_TTL, CertificateAuthority
from nsmesh.security.verify import verify_chain


@dataclass
class Hands:
    """A clock that is moved by hand."""

    time: float = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock():
    return Hands()


def test_leaves_are_what_the_contract_asks_for(tmp_path, clock):
    """P-256, exactly one URI SAN, no CA, signing only, 1 h, and they lead to the bundle."""
    ca = CertificateAuthority.open(tmp_path / "ca", "my.nsm", clock=clock)
    svid = ca.issue("spiffe://my.nsm/ns/default/pod/nsc")
    leaf, until = verify_chain(list(svid.chain), {"my.nsm": ca.bundle()}, clock.time)
    assert svid.spiffe_id == str(leaf.id) == "spiffe://my.nsm/ns/default/pod/nsc"
    assert until == svid.not_after == clock.time + 3600
    extensions = leaf.certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(one) for one in names] == [x509.UniformResourceIdentifier]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert isinstance(svid.key.curve, ec.SECP256R1)


@pytest.mark.parametrize("wanted", ["spiffe://other.nsm/x", "spiffe://my.nsm", "https://my.nsm/x", ""])
def test_ids_of_others_are_not_issued(tmp_path, wanted):
    """A CA speaks for its own trust domain."""
    ca = CertificateAuthority.open(tmp_path, "my.nsm")
    with pytest.raises(Invalid):
        ca.issue(wanted)


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL + 1, float("nan")])
def test_a_life_out_of_bounds_is_not_issued(tmp_path, ttl):
    """No SVID is born dead, or outlives its authority's retirement."""
    ca = CertificateAuthority.open(tmp_path, "my.nsm")
    with pytest.raises(Invalid):
        ca.issue("spiffe://my.nsm/x", ttl)


@pytest.mark.parametrize("passphrase", [None, b"secret"])
def test_a_restart_changes_nothing(tmp_path, passphrase):
    """The CA that is opened again is the same one, encrypted or not, and its keys lie at mode 0600."""
    folder = tmp_path / "ca"
    first = CertificateAuthority.open(folder, "my.nsm", passphrase=passphrase)
    again = CertificateAuthority.open(folder, "my.nsm", passphrase=passphrase)
    assert first.bundle() == again.bundle()
    svid = again.issue("spiffe://my.nsm/x")
    verify_chain(list(svid.chain), {"my.nsm": first.bundle()}, svid.not_before + 60)
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    content = (folder / "authority-1.pem").read_bytes()
    assert (b"ENCRYPTED" in content) is (passphrase is not None)


def test_a_passphrase_is_demanded_and_checked(tmp_path):
    """Without the passphrase, or with another, the CA does not open, and says why."""
    CertificateAuthority.open(tmp_path, "my.nsm", passphrase=b"secret")
    with pytest.raises(Refused, match=r"are encrypted - give"):
        CertificateAuthority.open(tmp_path, "my.nsm")
    with pytest.raises(Refused, match=r"do not open with this passphrase"):
        CertificateAuthority.open(tmp_path, "my.nsm", passphrase=b"wrong")


def test_a_passphrase_that_comes_later_encrypts_what_is_there(tmp_path):
    """Keys that were written in the clear are encrypted at the next start with a passphrase."""
    first = CertificateAuthority.open(tmp_path, "my.nsm")
    assert b"ENCRYPTED" not in (tmp_path / "authority-1.pem").read_bytes()
    second = CertificateAuthority.open(tmp_path, "my.nsm", passphrase=b"secret")
    assert second.bundle().der() == first.bundle().der()
    assert b"ENCRYPTED" in (tmp_path / "authority-1.pem").read_bytes()
    with pytest.raises(Refused, match=r"are encrypted"):
        CertificateAuthority.open(tmp_path, "my.nsm")


def test_a_folder_belongs_to_one_trust_domain(tmp_path):
    """A CA is not taken for another trust domain's."""
    CertificateAuthority.open(tmp_path, "my.nsm")
    with pytest.raises(Refused, match=r"not of other\.nsm"):
        CertificateAuthority.open(tmp_path, "other.nsm")


def test_what_is_missing_damaged_or_open_is_named(tmp_path):
    """Each trouble with the files is one sentence with the file's name and a remedy."""
    CertificateAuthority.open(tmp_path, "my.nsm")
    path = tmp_path / "authority-1.pem"
    good = path.read_bytes()

    def refuses(kind, match):
        with pytest.raises(kind, match=match) as caught:
            CertificateAuthority.open(tmp_path, "my.nsm")
        assert caught.value.remedy

    path.chmod(0o640)
    refuses(Refused, r"mode 0640")
    path.chmod(0o600)
    for damage in (b"", b"garbage", good[: len(good) // 2], good.replace(b"MIG", b"XXX")):
        path.write_bytes(damage)
        refuses(Invalid, r"authority-1\.pem is damaged")
    blocks = good.split(b"-----BEGIN")
    path.write_bytes(b"-----BEGIN".join([blocks[0], blocks[1], blocks[3], blocks[2]]))
    refuses(Invalid, r"does not belong to its certificate")
    path.unlink()
    refuses(Invalid, r"names no authority")
    path.write_bytes(good)
    path.chmod(0o600)
    (tmp_path / "active").write_text("7 x")
    refuses(Invalid, r"names no authority")
    (tmp_path / "active").unlink()
    refuses(NotFound, r"active is missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(tmp_path):
    """A key that another user could have put there is not used."""
    CertificateAuthority.open(tmp_path, "my.nsm")
    os.chown(tmp_path / "authority-1.pem", 12345, -1)
    with pytest.raises(Refused, match=r"belongs to uid 12345"):
        CertificateAuthority.open(tmp_path, "my.nsm")


def test_rotation_never_meets_an_unknown_authority(tmp_path, clock):
    """Over three years, each SVID verifies with every bundle that was published in its life."""
    ca = CertificateAuthority.open(tmp_path, "my.nsm", clock=clock)
    published = [(clock.time, ca.bundle())]
    living = []
    signers = set()
    for _ in range(3 * 2 * 365):
        clock.time += 43200
        if ca.maintain():
            published.append((clock.time, ca.bundle()))
        living = [svid for svid in living if svid.not_after > clock.time]
        living.append(ca.issue("spiffe://my.nsm/x", MAX_TTL))
        signers.add(ca.active.number)
        for svid in living:
            verify_chain(list(svid.chain), {"my.nsm": published[-1][1]}, clock.time)
        assert len(ca.authorities) <= 2
    assert len(signers) >= 4
    again = CertificateAuthority.open(tmp_path, "my.nsm", clock=clock)
    assert again.bundle() == ca.bundle()
    assert again.active.number == ca.active.number


def test_a_prepared_authority_is_trusted_before_it_signs(tmp_path, clock):
    """First into the bundle, later to sign: peers have time to learn of it."""
    ca = CertificateAuthority.open(tmp_path, "my.nsm", clock=clock)
    clock.time += LIFETIME * 0.6
    assert ca.maintain()
    assert not ca.maintain()
    assert (len(ca.bundle().authorities), ca.active.number) == (2, 1)
    clock.time += LIFETIME * 0.2
    assert ca.maintain()
    assert (len(ca.bundle().authorities), ca.active.number) == (2, 2)
    clock.time += MAX_TTL
    assert ca.maintain()
    assert len(ca.bundle().authorities) == 1


def test_an_svid_does_not_outlive_its_authority(tmp_path, clock):
    """Near the authority's own end, leaves are cut to it."""
    ca = CertificateAuthority.open(tmp_path, "my.nsm", clock=clock)
    clock.time += LIFETIME - 100
    assert ca.issue("spiffe://my.nsm/x").not_after == clock.time + 100


@pytest.mark.parametrize("step", [-3600.0, -10 * LIFETIME / 365, 2 * LIFETIME])
def test_a_clock_that_is_set_gets_an_authority_of_its_own_time(tmp_path, clock, step):
    """Set back behind the CA's first second, or past its end: two steps, and what it issues is valid."""
    ca = CertificateAuthority.open(tmp_path, "my.nsm", clock=clock)
    first = ca.issue("spiffe://my.nsm/x")
    clock.time += step
    assert (ca.maintain(), ca.maintain(), ca.maintain()) == (True, True, False)
    verify_chain(list(ca.issue("spiffe://my.nsm/x").chain), {"my.nsm": ca.bundle()}, clock.time)
    clock.time -= step  # and right again: what was issued before is still known
    verify_chain(list(first.chain), {"my.nsm": ca.bundle()}, clock.time)
    while ca.maintain():
        pass
    verify_chain(list(ca.issue("spiffe://my.nsm/x").chain), {"my.nsm": ca.bundle()}, clock.time)


def test_a_clock_that_goes_back_has_an_authority_sign_that_peers_know(tmp_path, clock):
    """Years ahead by mistake and right again: the one from before signs, and its successor in its turn."""
    ca = CertificateAuthority.open(tmp_path, "my.nsm", clock=clock)
    before = ca.bundle()
    clock.time += 2 * LIFETIME
    assert not ca.valid
    while ca.maintain():
        pass
    assert (ca.valid, ca.active.number) == (True, 2)
    clock.time -= 2 * LIFETIME
    assert not ca.valid
    assert (ca.maintain(), ca.maintain()) == (True, False)
    assert (ca.valid, ca.active.number) == (True, 1)
    verify_chain(list(ca.issue("spiffe://my.nsm/x").chain), {"my.nsm": before}, clock.time)
    again = CertificateAuthority.open(tmp_path, "my.nsm", clock=clock)
    assert again.active.number == 1
    for share, number in ((0.6, 1), (0.8, 3)):
        clock.time = 1_700_000_000.0 + share * LIFETIME
        assert ca.maintain()
        assert (ca.valid, ca.active.number) == (True, number)
    clock.time += MAX_TTL
    assert ca.maintain()
    assert [one.number for one in ca.authorities] == [3]
