"""Paths of every wrong shape, from insiders with good tokens."""

import asyncio
import json
import time

import pytest
from attacks import connection, headers, refusal, signed, spiffe
from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh.core.errors import MeshError
from nsmesh.model import methods
from nsmesh.model.messages import NetworkService


def add(made, name, identifier, token=""):
    segment = made.path.path_segments.add(name=name, id=identifier, token=token)
    segment.expires.FromSeconds(int(time.time()) + 600)
    return segment


def forged_middle(who):
    """Pretend that somebody else's wire passes through us, with a token that he never signed."""
    made = connection("victim-0", "victim")
    key = ec.generate_private_key(ec.SECP256R1())
    made.path.path_segments[0].token = signed(
        key, {"sub": spiffe("victim"), "aud": [spiffe("forwarder")], "exp": int(time.time()) + 600}
    )
    add(made, who.name, "m-1")
    made.id, made.path.index = "m-1", 1
    return made


def own_names(who):
    return connection("m-0", "nsmgr")


def names_again(who):
    made = connection("m-0", "nsmgr")
    for number in range(1, 4):
        add(made, "nsmgr", f"m-{number}")
    return made


def far_index(who):
    made = connection()
    made.path.index = 7
    return made


def farthest_index(who):
    made = connection()
    made.path.index = 2**32 - 1
    return made


def other_id(who):
    made = connection()
    made.id = "somebody-elses"
    return made


def no_path(who):
    made = connection()
    made.path.Clear()
    return made


def endless(who, segments=10_000, token=""):
    made = connection("m-0")
    for number in range(1, segments):
        add(made, f"hop-{number}", f"m-{number}", token)
    made.id, made.path.index = f"m-{segments - 1}", segments - 1
    return made


def long(who):
    return endless(who, 1100)


def endless_and_signed(who):
    return endless(who, 10_000, who.token(to=who.name))


CASES = {
    "a forged segment in the middle": (forged_middle, "tokens_chained refused hop 0 .*victim"),
    "the manager's own name": (own_names, "no segment of the caller before ours"),
    "one name, over and over": (names_again, "no segment of the caller before ours"),
    "an index behind the end": (far_index, "should be less or equal"),
    "the largest index": (farthest_index, "should be less or equal"),
    "another id than its segment": (other_id, "should be equal Connection.Id"),
    "no path": (no_path, "no segment of the caller before ours"),
    "a thousand segments": (long, "1101 segments is longer than 1024"),
    "ten thousand segments": (endless, "bytes is larger than"),
    "ten thousand segments with tokens": (endless_and_signed, "bytes is larger than"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_path_is_refused(mesh, mallory, case):
    """It is refused with its reason, the log says so, and nothing is left of it at the manager."""
    make, pattern = CASES[case]

    async def main():
        error = await refusal(mallory.request(mesh.url("nsmgr"), make(mallory)))
        line = mesh.heard(pattern, peer=spiffe(mallory.name), at=spiffe("nsmgr"))
        assert line["reason"] == str(error)
        assert len(str(error)) < 2000

    asyncio.run(main())


def text(index, *tokens):
    return json.dumps({"Index": index, "PathSegments": [{"token": token} for token in tokens]})


def test_registries_refuse_bent_paths(mesh, mallory):
    """The header of registry calls: forged, far, nested, endless, or no JSON; at manager and registry."""

    async def main():
        for role in ("nsmgr", "registry"):
            token = mallory.token(to=role)
            forged = signed(
                ec.generate_private_key(ec.SECP256R1()),
                claims_of("victim", to="nobody"),
            )
            for value, pattern in (
                (text(1, forged, ""), "tokens_chained"),
                (text(9, token), "points behind the last"),
                (text(2**40, token), "tokens_valid|there is no path"),
                ("[" * 5000, "there is no path"),
                ("no json", "there is no path"),
                (text(10_000, *["x"] * 4000), "metadata of|segments|points behind|tokens_valid"),
            ):
                mesh.mark()
                service = NetworkService(name="mallorys").SerializeToString()
                sent = (*headers(token), ("path", value))
                call = mallory.call(mesh.url(role), methods.SERVICE_REGISTER, service, sent)
                assert isinstance(await refusal(call), MeshError)
                mesh.heard(pattern, peer=spiffe(mallory.name), at=spiffe(role))

    asyncio.run(main())


def claims_of(name, to):
    return {"sub": spiffe(name), "aud": [spiffe(to)], "exp": int(time.time()) + 600}
