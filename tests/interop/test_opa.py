"""Our policies, as functions, against the same rules in Rego, evaluated by Open Policy Agent."""

import itertools
import json
import random
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nsmesh.security import jws, policy, rules
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.rules import Question, Undecided
from nsmesh.security.token import TokenReader

FOLDER = Path(__file__).with_name("opa")
DOMAIN = "policies.nsm"
POLICIES = {
    "tokens_valid": rules.tokens_valid,
    "tokens_expired": rules.tokens_expired,
    "tokens_chained": rules.tokens_chained,
    "prev_token_signed": rules.prev_token_signed,
    "next_token_signed": rules.next_token_signed,
    "client_allowed": rules.client_allowed,
}
PATHS = 400


@pytest.fixture(scope="module")
def opa(go_build):
    """Run the evaluator, and give a function that asks it."""
    program = go_build(FOLDER, ".", "opa")
    with subprocess.Popen(
        [program, FOLDER / "policies"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def ask(policy, asked):
            process.stdin.write(json.dumps({"policy": policy, "input": asked}) + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def svids(tmp_path_factory):
    ca = CertificateAuthority.open(tmp_path_factory.mktemp("ca"), DOMAIN)
    return [ca.issue(f"spiffe://{DOMAIN}/{name}") for name in "abcd"]


def ours(policy, question):
    try:
        return "false" if POLICIES[policy](question) else "true"
    except Undecided:
        return "error"


def as_users_have_it(asked, question):
    """Return what our engine for users' policies answers."""
    try:
        return "false" if asked(question) else "true"
    except Undecided:
        return "error"


def both(policy, tokens, index, svid, ids=None, name="n"):
    """Return the question for us and for OPA."""
    question = Question(
        tokens=tokens,
        index=index,
        certificate=svid.chain[0],
        peer=svid.spiffe_id,
        now=time.time(),
        reader=TokenReader(),
        resource=name,
        owners=ids or {},
    )
    asked = {
        "auth_info": {"certificate": pem(svid)},
        "resource_name": name,
        "resource_path_ids_map": ids or {},
        "path_segments": None if tokens is None else [{"token": token} for token in tokens],
    }
    if index:
        asked["index"] = index
    return question, asked


def pem(svid):
    return x509.load_der_x509_certificate(svid.chain[0]).public_bytes(Encoding.PEM).decode()


def token(rng, svids, position):
    """Return a token of the right hop, mostly; bent in one of the ways in which tokens are bent."""
    svid, following = svids[position % 4], svids[(position + 1) % 4]
    claims = {"sub": svid.spiffe_id, "aud": [following.spiffe_id], "exp": int(time.time()) + 600}
    signer = svid
    match rng.choice(
        ("good",) * 12 + ("aud", "none", "two", "twice", "text", "expired", "endless", "other", "sub")
    ):
        case "aud":
            claims["aud"] = [svid.spiffe_id]
        case "none":
            del claims["aud"]
        case "two":
            claims["aud"].append("spiffe://x/y")
        case "twice":
            claims["aud"] *= 2
        case "text":
            claims["aud"] = claims["aud"][0]
        case "expired":
            claims["exp"] -= 3600
        case "endless":
            del claims["exp"]
        case "other":
            signer = svids[(position + 2) % 4]
        case "sub":
            claims["sub"] = "spiffe://x/y"
    return jws.sign({"typ": "JWT"}, claims, signer.key)


@pytest.mark.timeout(240)  # the first time it is built
def test_any_path_has_the_same_answer(opa, svids):
    """Paths of every make, good ones among them: true, false, or no answer at all, from all alike."""
    rng = random.Random(7)
    seen = set()
    in_rego = {
        name: policy.select([str(FOLDER / "policies" / f"{name}.rego")])[0]
        for name in (POLICIES if find_spec("regopy") else ())
    }
    for number in range(PATHS):
        tokens = [token(rng, svids, position) for position in range(rng.choice((0, 1, 2, 2, 3, 4)))]
        if tokens and rng.random() < 0.1:
            tokens[rng.randrange(len(tokens))] = rng.choice(("", "x", "a.b.c"))
        if number % 40 == 0:
            tokens = None
        index = rng.randrange(len(tokens) + 1 if tokens else 2)
        svid = rng.choice(svids)
        ids = rng.choice(({}, {"n": []}, {"n": [svids[0].spiffe_id]}, {"n": [svids[1].spiffe_id, "x"]}))
        for name in POLICIES:
            question, asked = both(name, tokens, index, svid, ids)
            expected = opa(name, asked)
            assert ours(name, question) == expected, (name, asked)
            if name in in_rego and tokens is not None:
                # a token that is none ends its evaluation, where OPA goes on without
                assert as_users_have_it(in_rego[name], question) in (expected, "error"), (name, asked)
            seen.add((name, expected))
    assert {(name, answer) for name in POLICIES for answer in ("true", "false")} <= seen
    assert ("tokens_chained", "error") in seen


@pytest.mark.timeout(240)
def test_tokens_of_ours_are_read(opa, svids):
    """What our minter makes is a good chain to OPA too."""
    good = [
        jws.sign(
            {"typ": "JWT"},
            {"sub": one.spiffe_id, "aud": [two.spiffe_id], "exp": int(time.time()) + 600},
            one.key,
        )
        for one, two in itertools.pairwise(svids)
    ]
    for index in range(1, 3):
        asked = both("", good[: index + 1], index, svids[index - 1])[1]
        for name in ("tokens_valid", "tokens_expired", "tokens_chained", "prev_token_signed"):
            assert opa(name, asked) == "true"
