"""Certificates: whoever shows a wrong one, or none, does not get past the handshake of any role."""

import asyncio
import contextlib

import pytest
from attacks import Forged, Nobody, refusal, rsa_key, spiffe
from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh import rpc
from nsmesh.core.errors import TimedOut
from nsmesh.model import methods
from nsmesh.rpc import telling
from nsmesh.security.ca import CertificateAuthority

ROLES = ("registry", "nsmgr", "forwarder", "nse")


def signer(mesh):
    return mesh.ca.active.certificate, mesh.ca.active.key


def of_a_stranger(mesh, folder):
    theirs = CertificateAuthority.open(folder / "other", "attacked.nsm")
    return Forged(folder, [spiffe("nsc")], signer=(theirs.active.certificate, theirs.active.key))


def of_another_domain(mesh, folder):
    theirs = CertificateAuthority.open(folder / "other", "other.nsm")
    uri = ["spiffe://other.nsm/nsc"]
    return Forged(folder, uri, signer=(theirs.active.certificate, theirs.active.key))


def in_the_name_of_another_domain(mesh, folder):
    return Forged(folder, ["spiffe://other.nsm/nsc"], signer=signer(mesh))


CASES = {
    "a CA of the same name": (of_a_stranger, "the certificate of .* was refused|does not lead"),
    "another trust domain": (of_another_domain, "the certificate of .* was refused"),
    "another domain's name": (in_the_name_of_another_domain, "for which there is no bundle"),
    "expired": (
        lambda mesh, folder: Forged(folder, [spiffe("nsc")], signer=signer(mesh), life=(-7200, -3600)),
        "expired",
    ),
    "not valid yet": (
        lambda mesh, folder: Forged(folder, [spiffe("nsc")], signer=signer(mesh), life=(3600, 7200)),
        "not yet valid|not valid before",
    ),
    "self-signed": (lambda mesh, folder: Forged(folder, [spiffe("nsmgr")]), "self.signed"),
    "two URIs": (
        lambda mesh, folder: Forged(folder, [spiffe("nsc"), spiffe("nsmgr")], signer=signer(mesh)),
        "exactly one URI SAN': it has 2",
    ),
    "no URI": (lambda mesh, folder: Forged(folder, [], signer=signer(mesh)), "exactly one URI SAN"),
    "no SPIFFE ID": (
        lambda mesh, folder: Forged(folder, ["https://attacked.nsm/nsc"], signer=signer(mesh)),
        "the URI is a SPIFFE ID",
    ),
    "RSA": (
        lambda mesh, folder: Forged(folder, [spiffe("nsc")], signer=signer(mesh), key=rsa_key()),
        f"{spiffe('nsc')} breaks the rule 'the key is EC P-256'",
    ),
    "P-384": (
        lambda mesh, folder: Forged(
            folder, [spiffe("nsc")], signer=signer(mesh), key=ec.generate_private_key(ec.SECP384R1())
        ),
        "the key is EC P-256",
    ),
    "a CA": (
        lambda mesh, folder: Forged(folder, [spiffe("nsc")], signer=signer(mesh), ca=True),
        "CA is false",
    ),
    "no HTTP/2": (
        lambda mesh, folder: Forged(folder, [spiffe("nsc")], signer=signer(mesh), alpn=()),
        "does not offer HTTP/2",
    ),
    "none": (lambda mesh, folder: Nobody(), "showed no certificate"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_certificate_is_refused(mesh, tmp_path, case):
    """It is refused by every role, with a line that says what is wrong with it, to whom it was shown."""
    make, pattern = CASES[case]
    identity = make(mesh, tmp_path)

    async def main():
        for role in ROLES:
            line = None
            for _ in range(4):  # the log has room for some lines of one user: else it is told at the next try
                mesh.mark()
                error = await refusal(attempt(mesh.url(role), identity))
                assert not isinstance(error, TimedOut)
                with contextlib.suppress(AssertionError):
                    line = mesh.heard(pattern, telling.WINDOW, at=spiffe(role))
                    break
            assert line, f"the {role} says nothing of {pattern}"
            assert mesh.url(role) in line["where"]

    asyncio.run(main())


async def attempt(url, identity):
    client = await rpc.connect(url, identity=identity)
    try:
        await client.unary(methods.HEALTH_CHECK, b"", deadline=asyncio.get_running_loop().time() + 3)
    finally:
        await client.aclose(0)
