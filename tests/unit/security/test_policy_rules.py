"""The policies as functions: the boundary cases of the wire contract, one by one."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Internal, Invalid, Unauthorized
from nsmesh.security import jws, rules
from nsmesh.security.policy import (
    BUILT_IN,
    CLIENT_POLICIES,
    MAX_SEGMENTS,
    REFUSED,
    REGISTRY_CLIENT_POLICIES,
    REGISTRY_SERVER_POLICIES,
    SERVER_POLICIES,
    authorize,
    select,
)
from nsmesh.security.rules import Question, Undecided
from nsmesh.security.token import TokenReader

NOW = 1_700_000_000.0
NSC, NSMGR, NSE = (f"spiffe://td/{name}" for name in ("nsc", "nsmgr", "nse"))
LEAVE_OUT = object()
KEY = ec.generate_private_key(ec.SECP256R1())


class Mint:
    """Keys, leaves and tokens of a few roles."""

    def __init__(self, shop, root) -> None:
        self.leaves = {one: shop.forge(one, (one,), issuer=root) for one in (NSC, NSMGR, NSE)}
        self.foreign = shop.new_key()

    def token(self, sub=NSC, aud=(NSMGR,), exp=NOW + 600, *, signer=None):
        claims = {"sub": sub, "aud": list(aud) if isinstance(aud, tuple) else aud, "exp": exp}
        claims = {key: value for key, value in claims.items() if value is not LEAVE_OUT}
        key = self.leaves[signer or sub].key if (signer or sub) in self.leaves else self.foreign
        return jws.sign({"typ": "JWT"}, claims, key)


@pytest.fixture
def mint(shop, root):
    return Mint(shop, root)


def question(mint, tokens, *, index=1, peer=NSC, certificate=None, **rest):
    leaf = mint.leaves[peer].der if certificate is None else certificate
    return Question(tokens, index, leaf, peer, NOW, TokenReader(), **rest)


def answer(policies, asked):
    """Return "ok", "denied" or "error", as a peer would see it."""
    try:
        authorize(policies, asked)
    except Unauthorized as refusal:
        return "denied" if refusal.what.startswith(REFUSED) and refusal.remedy else "says too little"
    except Internal:
        return "error"
    return "ok"


SERVER = select(SERVER_POLICIES)
CLIENT = select(CLIENT_POLICIES)


def server_path(mint, **first):
    return [mint.token(**first), mint.token(NSMGR, (NSC,))]


FIRST_TOKENS = {
    "correct": ({}, "ok"),
    "aud is a string": ({"aud": NSMGR}, "denied"),
    "aud names somebody else": ({"aud": ("spiffe://td/nobody",)}, "denied"),
    "two different audiences": ({"aud": (NSMGR, "spiffe://td/x")}, "error"),
    "two different audiences, neither the next": ({"aud": ("spiffe://td/y", "spiffe://td/x")}, "denied"),
    "two equal audiences": ({"aud": (NSMGR, NSMGR)}, "ok"),
    "no aud": ({"aud": LEAVE_OUT}, "denied"),
    "empty aud list": ({"aud": ()}, "denied"),
    "aud is an object": ({"aud": {"x": NSMGR}}, "denied"),
    "expired": ({"exp": NOW - 1}, "denied"),
    "expires now": ({"exp": NOW}, "denied"),
    "no exp": ({"exp": LEAVE_OUT}, "denied"),
    "exp is text": ({"exp": "9999999999"}, "denied"),
    "exp with a fraction": ({"exp": NOW + 0.5}, "ok"),
    "signed by a foreign key": ({"signer": "nobody"}, "denied"),
    "signed by the next hop": ({"signer": NSMGR}, "denied"),
    "foreign sub": ({"sub": "spiffe://td/x", "signer": NSC}, "ok"),
    "no sub": ({"sub": LEAVE_OUT, "signer": NSC}, "ok"),
}


@pytest.mark.parametrize("case", FIRST_TOKENS)
def test_the_callers_token_at_a_server(mint, case):
    """What the field's rules make of the first of two tokens, ours make of it, too."""
    first, expected = FIRST_TOKENS[case]
    assert answer(SERVER, question(mint, server_path(mint, **first))) == expected


def test_the_last_token_may_lack_its_audience(mint):
    """Nobody stands behind the last token: its aud is not looked at, not even when it has two."""
    for aud in (LEAVE_OUT, (), "text", ("a", "b")):
        path = [mint.token(), mint.token(NSMGR, aud)]
        assert answer(SERVER, question(mint, path)) == "ok"


def test_an_earlier_token_must_be_addressed_to_the_next_hop(mint):
    """A middle token that was not re-addressed, or lacks aud or sub, breaks the chain."""
    last = mint.token(NSE, (NSMGR,))
    for aud, expected in (((NSE,), "ok"), ((NSC,), "denied"), (LEAVE_OUT, "denied"), ((NSE, NSC), "error")):
        path = [mint.token(), mint.token(NSMGR, aud), last]
        assert answer(SERVER, question(mint, path, index=2, peer=NSMGR)) == expected
    path = [mint.token(), mint.token(LEAVE_OUT, (NSE,), signer=NSMGR), last]
    assert answer(SERVER, question(mint, path, index=2, peer=NSMGR)) == "denied"


def test_a_forged_segment_in_the_middle_breaks_the_chain(mint):
    """Who slips a segment in between cannot make the one before it speak to him."""
    path = [mint.token(), mint.token(NSE, (NSMGR,), signer="nobody"), mint.token(NSMGR, (NSE,))]
    assert answer(SERVER, question(mint, path, index=2, peer=NSE)) == "denied"


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", "x" * 1_000_000])
def test_a_segment_without_a_token_is_denied(mint, token):
    """Wherever it stands."""
    for position in range(3):
        path = [mint.token(), mint.token(NSMGR, (NSE,)), mint.token(NSE, (NSMGR,))]
        path[position] = token
        assert answer(SERVER, question(mint, path, index=2, peer=NSMGR)) == "denied"
        assert answer(CLIENT, question(mint, path, index=0, peer=NSMGR)) == "denied"


def test_an_index_without_a_previous_segment_is_denied(mint):
    """Index 0 at a server, an index behind the path's end, an empty path."""
    path = server_path(mint)
    for index in (0, 3, 4_000_000_000):
        assert answer(SERVER, question(mint, path, index=index)) == "denied"
    assert answer(SERVER, question(mint, [], index=0)) == "denied"
    assert answer(SERVER, question(mint, [], index=1)) == "denied"


def test_a_wrong_or_absent_certificate_is_denied(mint, shop, root):
    """The token counts only with the leaf that TLS showed, and an RSA leaf signs no ES256."""
    weak = shop.forge("x", (NSC,), issuer=root, key=rsa.generate_private_key(65537, 2048))
    for certificate in (b"", b"x", mint.leaves[NSE].der, weak.der):
        assert answer(SERVER, question(mint, server_path(mint), certificate=certificate)) == "denied"


def test_no_path_and_an_empty_path_differ(mint):
    """The common rules deny a path that is not there, and pass an empty one."""
    for rule in (rules.tokens_valid, rules.tokens_expired, rules.tokens_chained):
        assert rule(question(mint, None))
        assert rule(question(mint, [])) is None
    for rule in (rules.prev_token_signed, rules.next_token_signed):
        assert rule(question(mint, None))
        assert rule(question(mint, []))


def test_a_client_wants_the_servers_signature(mint):
    """The token behind our own has to be there and signed with the server's leaf."""
    path = [mint.token(), mint.token(NSMGR, (NSE,)), mint.token(NSE, (NSMGR,))]
    assert answer(CLIENT, question(mint, path, index=0, peer=NSMGR)) == "ok"
    assert answer(CLIENT, question(mint, path, index=0, peer=NSE)) == "denied"
    assert answer(CLIENT, question(mint, path[:1], index=0, peer=NSMGR)) == "denied"
    assert answer(CLIENT, question(mint, path, index=2, peer=NSMGR)) == "denied"


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ({}, "ok"),
        ({"other": [NSE]}, "ok"),
        ({"name": [NSC, NSMGR]}, "ok"),
        ({"name": [NSE, NSC]}, "denied"),
        ({"name": []}, "denied"),
    ],
)
def test_a_name_belongs_to_its_first_registrant(mint, owners, expected):
    """A free name is everybody's, a taken one its owner's, and one with an empty owner list nobody's."""
    policies = select(REGISTRY_SERVER_POLICIES)
    asked = question(mint, server_path(mint), resource="name", owners=owners)
    assert answer(policies, asked) == expected


def test_a_monitor_rule_is_shipped(mint):
    """Selected connections have to meet those once requested; nobody asks this rule by default."""

    def asked(own, selected):
        return question(mint, [], connections={NSC: own}, selected=selected)

    assert rules.service_connection(asked(["a", "b"], ["b"])) is None
    for own, selected in ((["a"], ["b"]), ([], ["b"]), (["a"], [])):
        assert rules.service_connection(asked(own, selected))


def test_strict_subjects_are_there_for_who_wants_them(mint):
    """With the mask nsmesh/, a caller cannot speak in another's name."""
    strict = select([*SERVER_POLICIES, "nsmesh/.*"])
    assert answer(strict, question(mint, server_path(mint))) == "ok"
    for sub in ("spiffe://td/x", LEAVE_OUT):
        path = server_path(mint, sub=sub, signer=NSC)
        assert answer(strict, question(mint, path)) == "denied"


def test_a_refusal_tells_rule_hop_and_identities(mint):
    """One sentence says which rule, which hop by index and names, and whose identities are at odds."""
    path = server_path(mint, aud=("spiffe://td/nobody",))
    with pytest.raises(Unauthorized) as caught:
        authorize(SERVER, question(mint, path, names=["nsc-0", "nsmgr-1"]))
    assert caught.value.what == (
        "no sufficient privileges: tokens_chained refused hop 0 (nsc-0 -> nsmgr-1): "
        "the token of spiffe://td/nsc is addressed to spiffe://td/nobody, but the next one is of spiffe://td/nsmgr"
    )
    with pytest.raises(
        Unauthorized, match=r"says spiffe://td/nsc, but the caller spiffe://td/nse did not sign"
    ):
        authorize(SERVER, question(mint, server_path(mint), peer=NSE))
    with pytest.raises(Unauthorized, match=r"of spiffe://td/nsc to spiffe://td/nsmgr expired 30 s ago"):
        authorize(SERVER, question(mint, server_path(mint, exp=NOW - 30)))


def test_a_refusal_gives_no_token_away(mint):
    """Errors travel far; tokens must not travel with them, and hostile text is made harmless."""
    evil = "evil\x1b[31m\n" + "x" * 5000 + "\ud800"
    tokens = [mint.token(aud=(evil,)), mint.token(NSMGR, (NSC,)), "g" * 300]
    for path in (tokens[:2], tokens):
        with pytest.raises(Unauthorized) as caught:
            authorize(SERVER, question(mint, path, names=[evil, "b", "c"]))
        text = str(caught.value)
        assert not any(token in text for token in tokens)
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 1500


def test_masks_select_the_built_in_policies():
    """Masks of variables name files of the field; folder and regular expression select the functions."""
    assert (rules.tokens_valid, rules.tokens_expired, rules.tokens_chained, rules.prev_token_signed) == SERVER
    assert CLIENT[-1] is rules.next_token_signed
    assert set(select(REGISTRY_CLIENT_POLICIES)) == {*CLIENT, rules.client_allowed}
    assert select([]) == ()
    assert select(["/etc/nsm/opa/common/tokens_valid.rego", " etc/nsm/opa/common/tokens_valid.rego "]) == (
        rules.tokens_valid,
    )
    assert len(
        select(["common/.*", "server/.*", "client/.*", "registry/.*", "monitor/.*", "nsmesh/.*"])
    ) == len(BUILT_IN)


@pytest.mark.parametrize("mask", ["", "/etc/other/.*.rego", "common/x.rego", "common/(", "common/"])
def test_a_mask_that_selects_nothing_stops_the_start(mask):
    """Better no start than a policy that somebody believes in and nobody evaluates."""
    with pytest.raises(Invalid):
        select([mask])


def test_a_long_path_costs_a_bounded_time(mint):
    """10,000 segments, equal or all different, are decided in well under a second."""
    token = mint.token(NSC, (NSC,))
    for path in ([token] * 10_000, [f"x.{index}.y" for index in range(10_000)]):
        begin = time.process_time()
        assert answer(SERVER, question(mint, path, index=9_999)) == "denied"
        assert time.process_time() - begin < 0.5
    begin = time.process_time()
    assert answer(SERVER, question(mint, [token] * MAX_SEGMENTS, index=1)) == "ok"
    assert time.process_time() - begin < 0.5


@given(st.data())
def test_any_path_is_decided(data):
    """Whatever texts, indices and certificates come: each rule says yes, says no, or is undecided."""
    claims = st.dictionaries(
        st.sampled_from(["sub", "aud", "exp"]),
        st.sampled_from(["a", "b", ["a"], ["a", "b"], ["b", "b"], [], 1, 9e9, None, True, {"a": "b"}]),
    )
    tokens = data.draw(st.none() | st.lists(st.text(max_size=9) | claims, max_size=5))
    if tokens is not None:
        tokens = [one if isinstance(one, str) else jws.sign({}, one, KEY) for one in tokens]
    asked = Question(
        tokens,
        data.draw(st.integers(0, 7)),
        data.draw(st.binary(max_size=9)),
        data.draw(st.text(max_size=9)),
        NOW,
        TokenReader(),
        names=data.draw(st.lists(st.text(max_size=9), max_size=6)),
        resource=data.draw(st.sampled_from(["", "a"])),
        owners=data.draw(
            st.dictionaries(st.sampled_from(["", "a"]), st.lists(st.sampled_from("ab"), max_size=2))
        ),
    )
    for policy in BUILT_IN.values():
        try:
            refusal = policy(asked)
        except Undecided:
            continue
        assert refusal is None or refusal.why
    assert answer(tuple(BUILT_IN.values()), asked) in ("ok", "denied", "error")


GO_SAYS = {"OK": "ok", "PERMISSION_DENIED": "denied", "INTERNAL": "error"}


def recorded(shop, file, server):
    """Yield (name of the step, header tokens, expected answer) of a recording of wrong tokens."""
    header, events = shop.trace(file)
    tokens = {name: one["raw"] for name, one in header["tokens"].items()}
    leaves = {
        role: x509.load_pem_x509_certificate(one["leaf"].encode()).public_bytes(Encoding.DER)
        for role, one in header["identities"].items()
    }
    step, calls = "", {}
    for event in events:
        if event["ev"] == "action":
            step = event["text"]
        elif event["ev"] == "request" and event["method"].endswith(("/Request", "/Register")):
            sent = [tokens.get(value, value) for key, value in event["metadata"] if key == "nsm-client-token"]
            expiries = [value for key, value in event["metadata"] if key == "nsm-client-token-expires"]
            calls[event["call"]] = (step, sent, expiries)
        elif event["ev"] == "trailers" and event["call"] in calls:
            step_of, sent, expiries = calls[event["call"]]
            yield step_of, sent, expiries, leaves["probe"], GO_SAYS[event["status_name"]]


@pytest.mark.parametrize(("file", "server"), [("errors-tokens", "nsmgr"), ("registry-tokens", "registry")])
def test_recorded_answers_to_wrong_tokens(mint, shop, file, server):
    """Every token that the Go manager and registry accepted or refused, ours accept or refuse alike."""
    own = mint.token(f"spiffe://test.nsm/{server}", ("spiffe://test.nsm/probe",), exp=9e9, signer=NSMGR)
    seen = set()
    for step, sent, expiries, leaf, expected in recorded(shop, file, server):
        whole = len(sent) == 1 and len(expiries) == 1 and expiries[0][:1].isdigit()
        path = [sent[0] if whole else "", own]
        at = min([9e9, *(exp for token in sent if (exp := _exp(token)))]) - 60
        if step == "token: expired":
            at = 1_795_433_000.0
        asked = Question(path, 1, leaf, "spiffe://test.nsm/probe", at, TokenReader())
        assert answer(SERVER, asked) == expected, step
        seen.add(step)
    assert len(seen) >= 20


def _exp(token):
    try:
        return jws.parse(token).claims.get("exp")
    except jws.BadToken:
        return None
