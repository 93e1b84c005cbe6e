"""Certificates for DNS names, and the rotation of who signs them."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given, settings
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.security.serving import ACTIVATE, PREPARE, due, dump, issue, load, make_signer

NOW = 1_700_000_000.0
LIFE, TTL = 1000.0, 100.0
NAME = "webhook.nsm-system.svc"


def verified(pem: bytes, bundle, at: float, name: str = NAME) -> bool:
    """Say whether a caller that trusts ``bundle`` accepts the certificate for the name."""
    builder = PolicyBuilder().store(Store(bundle)).time(dt.datetime.fromtimestamp(at, tz=dt.UTC))
    try:
        builder.build_server_verifier(x509.DNSName(name)).verify(x509.load_pem_x509_certificate(pem), [])
    except x509.verification.VerificationError:
        return False
    return True


def test_a_certificate_is_good_for_its_names_and_its_time():
    """Its authority vouches for the names that it was issued for, until it ends; another does not."""
    signer, other = make_signer(NOW, LIFE), make_signer(NOW, LIFE)
    pem, end = issue(signer, [NAME, "webhook.nsm-system"], NOW, TTL)
    assert end == NOW + TTL
    assert verified(pem, [signer.certificate], NOW + 1)
    assert not verified(pem, [signer.certificate], NOW + 1, "other.nsm-system.svc")
    assert not verified(pem, [signer.certificate], NOW + TTL + 2)
    assert not verified(pem, [other.certificate], NOW + 1)
    assert issue(signer, [NAME], NOW + LIFE - 10, TTL)[1] == NOW + LIFE, "not longer than who signed it"


def test_the_three_steps():
    """Prepared at half of its life, active at three quarters once callers know it, retired a TTL later."""
    first = due(None, NOW, LIFE, TTL, "")
    assert due(first, NOW + LIFE * PREPARE - 1, LIFE, TTL, first.pem) is first
    prepared = due(first, NOW + LIFE * PREPARE, LIFE, TTL, first.pem)
    assert prepared.signer is first.signer
    assert prepared.next is not None
    at = NOW + LIFE * ACTIVATE
    assert due(prepared, at, LIFE, TTL, first.pem) is prepared, "callers do not know it yet"
    active = due(prepared, at, LIFE, TTL, prepared.pem)
    assert active.signer is prepared.next
    assert active.bundle == (first.signer.certificate, prepared.next.certificate)
    assert due(active, at + TTL - 1, LIFE, TTL, active.pem) is active
    assert due(active, at + TTL, LIFE, TTL, active.pem).bundle == (prepared.next.certificate,)


def test_who_slept_through_it_begins_anew():
    """An authority that has ended signs nothing."""
    first = due(None, NOW, LIFE, TTL, "")
    assert due(first, NOW + LIFE, LIFE, TTL, first.pem).signer.certificate != first.signer.certificate


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1, LIFE / 4), min_size=1, max_size=40))
def test_whoever_knew_the_bundle_a_moment_ago_accepts_the_certificate(pauses):
    """At whatever times the steps are taken: a new certificate, and one of before the step, are trusted."""
    now = NOW
    held = due(None, now, LIFE, TTL, "")
    known = held.pem
    for pause in pauses:
        before, _ = issue(held.signer, [NAME], now, TTL)
        trusted = x509.load_pem_x509_certificates(known.encode())
        assert verified(before, trusted, now + 1)
        now += pause
        after = due(held, now, LIFE, TTL, known)
        if now >= held.signer.end:
            return
        assert verified(issue(after.signer, [NAME], now, TTL)[0], trusted, now + 1)
        if pause < TTL - 2:
            assert verified(before, after.bundle, now + 1)
        held, known = after, after.pem


def test_they_come_back_from_a_secret():
    """What was written is read; what is damaged is no authority."""
    held = due(due(None, NOW, LIFE, TTL, ""), NOW + LIFE * PREPARE, LIFE, TTL, "")
    files = dump(held)
    again = load(files)
    assert again.pem == held.pem
    assert again.since == held.since
    assert again.next.key.private_numbers() == held.next.key.private_numbers()
    stranger = make_signer(NOW, LIFE).certificate.public_bytes(Encoding.PEM)
    for name, content in (("signer.pem", b""), ("since", b"x"), ("next.pem", stranger), ("former.pem", b"x")):
        with pytest.raises(Invalid):
            load({**files, name: content})
    with pytest.raises(Invalid):
        load({})
