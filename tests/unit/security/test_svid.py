"""The SVID that a process holds, and the TLS contexts made of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nsmesh.core.errors import Invalid, Unauthorized, Unavailable
from nsmesh.security import contexts
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import Svid, SvidSource, read_key
from nsmesh.security.verify import Bundle


@pytest.fixture
def ca(tmp_path):
    return CertificateAuthority.open(tmp_path / "ca", "my.nsm")


def shake(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Make a TLS connection in memory."""
    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    ours = client.wrap_bio(client_in, client_out)
    theirs = server.wrap_bio(server_in, server_out, server_side=True)
    for _ in range(8):
        for side in (ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            server_in.write(client_out.read())
            client_in.write(server_out.read())
    return ours, theirs


def test_both_sides_prove_who_they_are(ca):
    """MTLS over the contexts: ALPN h2, TLS 1.2 at least, and each side's ID comes out of verify."""
    nsc = SvidSource(ca.issue("spiffe://my.nsm/nsc"), [ca.bundle()])
    nsmgr = SvidSource(ca.issue("spiffe://my.nsm/nsmgr"), [ca.bundle()])
    ours, theirs = shake(nsc.client_context(), nsmgr.server_context())
    assert ours.selected_alpn_protocol() == theirs.selected_alpn_protocol() == "h2"
    assert ours.version() in ("TLSv1.2", "TLSv1.3")
    assert nsc.verify([ours.getpeercert(binary_form=True)]) == "spiffe://my.nsm/nsmgr"
    assert nsmgr.verify([theirs.getpeercert(binary_form=True)]) == "spiffe://my.nsm/nsc"
    assert not ours.session_reused


def test_a_session_cannot_be_resumed(ca):
    """Each connection shows the certificate again: there is no ticket to come back with."""
    source = SvidSource(ca.issue("spiffe://my.nsm/nsc"), [ca.bundle()])
    ours, _ = shake(source.client_context(), source.server_context())
    assert ours.session is None or not ours.session.has_ticket


def test_a_client_without_certificate_is_turned_away(ca):
    """The server demands a certificate in the handshake itself."""
    server = SvidSource(ca.issue("spiffe://my.nsm/nsmgr"), [ca.bundle()]).server_context()
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname = False
    nobody.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        shake(nobody, server)


def test_a_stranger_is_turned_away_in_the_handshake(ca, tmp_path):
    """Who is of no known bundle does not get past TLS."""
    other = CertificateAuthority.open(tmp_path / "other", "my.nsm")
    ours = SvidSource(ca.issue("spiffe://my.nsm/a"), [ca.bundle()])
    stranger = SvidSource(other.issue("spiffe://my.nsm/b"), [other.bundle(), ca.bundle()])
    with pytest.raises(ssl.SSLError):
        shake(stranger.client_context(), ours.server_context())


def test_a_federated_authority_cannot_speak_for_ours(ca, shop):
    """OpenSSL alone would take it, since it knows the union of the bundles; verify does not."""
    other = shop.forge("other", ca=True, life=(1_600_000_000, 4_000_000_000))
    forged = shop.forge("leaf", ("spiffe://my.nsm/nsmgr",), issuer=other, life=(1_600_000_000, 4_000_000_000))
    bundles = [ca.bundle(), Bundle("other.nsm", (other.certificate,))]
    ours = SvidSource(ca.issue("spiffe://my.nsm/nsc"), bundles)
    theirs = SvidSource(Svid((forged.der,), forged.key), bundles)
    seen, _ = shake(ours.client_context(), theirs.server_context())
    with pytest.raises(Unauthorized, match=r"does not lead to the bundle of my\.nsm"):
        ours.verify([seen.getpeercert(binary_form=True)])


def test_rotation_replaces_contexts_and_tells(ca):
    """New connections show the new SVID; listeners hear of it once, and one that fails harms nobody."""
    source = SvidSource(ca.issue("spiffe://my.nsm/a"), [ca.bundle()])
    heard = []

    def broken():
        raise RuntimeError("mine alone")

    source.on_rotation(broken)
    forget = source.on_rotation(lambda: heard.append(source.spiffe_id))
    before = source.client_context()
    assert source.client_context() is before
    source.update(ca.issue("spiffe://my.nsm/b"), [ca.bundle()])
    assert source.client_context() is not before
    forget()
    forget()
    source.update(ca.issue("spiffe://my.nsm/c"), [ca.bundle()])
    assert heard == ["spiffe://my.nsm/b"]


def test_before_the_first_svid_there_is_none(ca):
    """Asking too early says so; waiting ends with the first SVID."""

    async def main():
        source = SvidSource()
        with pytest.raises(Unavailable, match=r"no SVID yet"):
            _ = source.spiffe_id
        waiting = asyncio.create_task(source.wait())
        await asyncio.sleep(0)
        source.update(ca.issue("spiffe://my.nsm/a"), [ca.bundle()])
        assert (await waiting).spiffe_id == "spiffe://my.nsm/a"

    asyncio.run(main())


def test_an_svid_is_read_back_from_the_workload_api(ca):
    """DER out, DER in."""
    svid = ca.issue("spiffe://my.nsm/a")
    again = Svid.from_der(b"".join(svid.chain), svid.key_der())
    assert again.spiffe_id == svid.spiffe_id
    assert again.pem() == svid.pem()
    assert "key" not in repr(again)


def test_a_wrong_svid_is_refused(ca, leaf, shop):
    """A foreign key, a key of a wrong kind, no certificate: each says what is wrong."""
    with pytest.raises(Invalid, match=r"does not belong"):
        Svid((leaf.der,), shop.new_key())
    with pytest.raises(Invalid, match=r"without a certificate"):
        Svid.from_der(b"", leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        with pytest.raises(Invalid, match=r"P-256"):
            read_key(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(Invalid, match=r"cannot be read"):
        read_key(b"x")
    authority = shop.forge("ca", ("spiffe://test.nsm/x",), ca=True)
    with pytest.raises(Invalid, match=r"our own SVID is refused"):
        Svid((authority.der,), authority.key)


@pytest.mark.parametrize("memfd", [True, False])
def test_no_key_is_left_on_disk(ca, tmp_path, monkeypatch, memfd):
    """Contexts are made without a file that a name leads to, and without a descriptor left open."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(contexts.tempfile, "tempdir", str(folder))
    if not memfd:
        monkeypatch.delattr(contexts.os, "memfd_create")
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = SvidSource(ca.issue("spiffe://my.nsm/a"), [ca.bundle()])
    shake(source.client_context(), source.server_context())
    assert list(folder.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
