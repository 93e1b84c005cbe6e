"""Every recorded byte goes through our classes and back."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from interop_fields import plain, with_sorted_maps
from interop_trace import CLASSES, NAMES, load

from nsmesh.api.health_pb2 import HealthCheckResponse
from nsmesh.model.registry_path import read_registry_path
from nsmesh.model.times import from_rfc3339, rfc3339
from nsmesh.rpc import framing
from nsmesh.security import jws
from nsmesh.security.spiffe import read_leaf

BROKEN = {"health": 3}
"""Messages that are none, on purpose."""


@pytest.mark.parametrize("name", NAMES)
def test_messages_come_back_as_they_were(name):
    """Decoded and encoded, each message has the same bytes; only the order of map entries is free."""
    broken = 0
    for call in load(name).calls:
        for said in (*call.requests, *call.answers):
            if said.body is None:
                broken += 1
            if said.body is None or "SVIDResponse" in said.type:
                continue
            message = said.message
            assert message is not None, (call.number, said.type)
            wanted = with_sorted_maps(said.raw, message.DESCRIPTOR)
            assert message.SerializeToString(deterministic=True) == wanted
            again = type(message).FromString(message.SerializeToString())
            assert again == message
    assert broken == BROKEN.get(name, 0)


@pytest.mark.parametrize("name", NAMES)
def test_messages_say_what_was_recorded(name):
    """Our names, enums and presence of each field are those of the recording."""
    trace = load(name)
    raws = {one["raw"]: token for token, one in trace.tokens.items()}
    for call in trace.calls:
        for said in (*call.requests, *call.answers):
            if said.message is not None and said.type in CLASSES and "SVID" not in said.type:
                assert named(plain(said.message), raws) == words(said)


def words(said):
    """Return the body of a message; the states of a health check were recorded as numbers."""
    states = said.type == HealthCheckResponse.DESCRIPTOR.full_name and said.body
    return {"status": HealthCheckResponse.ServingStatus.Name(states["status"])} if states else said.body


def named(value, raws):
    """Replace tokens by their names, as the recorder did."""
    if isinstance(value, dict):
        return {key: named(item, raws) for key, item in value.items()}
    if isinstance(value, list):
        return [named(item, raws) for item in value]
    return raws.get(value, value) if isinstance(value, str) else value


def headers(name, key):
    """Return the values of a header in a conversation, of requests and of answers."""
    return [value for call in load(name).calls for of, value in (*call.metadata, *call.head) if of == key]


@pytest.mark.parametrize("name", NAMES)
def test_path_headers_come_back_as_they_were(name):
    """A ``path`` header of a Go program is read, and written again in the same words."""
    trace = load(name)
    go = trace.roles()
    for call in trace.calls:
        texts = [(value, call.client) for value in call.header("path")]
        texts += [(value, call.server) for value in call.answer_header("path")]
        for text, role in texts:
            try:
                path = read_registry_path(text)
            except ValueError:
                assert role not in go
            else:
                assert read_registry_path(path.text()) == path
                if role in go and call.status == 0:  # a refusal hands the stand-in's own words back
                    assert path.text() == text


@pytest.mark.parametrize("name", NAMES)
def test_times_in_headers_are_read(name):
    """An expiry as Go writes it, with any number of decimals, comes back to the microsecond."""
    for text in headers(name, "nsm-client-token-expires"):
        try:
            moment = from_rfc3339(text)
        except ValueError:
            assert name in {"errors-tokens", "registry-tokens"}
        else:
            assert from_rfc3339(rfc3339(moment)) == pytest.approx(moment, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_timeouts_are_read(name):
    """A ``grpc-timeout`` as grpc-go writes it is read; ours, of the same time, is read as that time."""
    for text in headers(name, "grpc-timeout"):
        seconds = framing.decode_timeout(text.encode())
        assert 0 < seconds < 24 * 3600
        assert framing.decode_timeout(framing.encode_timeout(seconds)) == pytest.approx(seconds, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_read_and_verify(name):
    """Header, claims and signature of each recorded token are what the recording says of them."""
    trace = load(name)
    keys = {
        role: read_leaf(
            x509.load_pem_x509_certificate(one["leaf"].encode()).public_bytes(Encoding.DER)
        ).public_key
        for role, one in trace.header["identities"].items()
    }
    for token in trace.tokens.values():
        try:
            parsed = jws.parse(token["raw"])
        except jws.BadToken:
            assert name in {"errors-tokens", "registry-tokens"}
            continue
        assert parsed.claims == token["claims"]
        if token["signature"] in keys:
            assert parsed.verifies(keys[token["signature"]])
        elif token["signature"] == "foreign":
            assert not any(parsed.verifies(key) for key in keys.values())


def key_of(pem):
    """Return the public key of a leaf."""
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    return read_leaf(der).public_key
