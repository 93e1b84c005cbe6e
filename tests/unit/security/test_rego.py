"""Policies of users in Rego: which file is one, what it is asked, what it answers, what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from nsmesh.core.errors import Internal, Invalid, NotFound, Unauthorized
from nsmesh.model.messages import PathSegment
from nsmesh.security import jws, policy, rego, rules
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.rules import Question
from nsmesh.security.token import TokenReader

pytest.importorskip("regopy")

NSC, NSMGR = "spiffe://td/nsc", "spiffe://td/nsmgr"
NOW = 1_700_000_000.0
ONLY_NSC = """\
package mine

default valid := false

claims := found if [_, found, _] := io.jwt.decode(input.path_segments[input.index - 1].token)

valid if claims.sub == "spiffe://td/nsc"
"""
AS_UPSTREAM = """\
package nsm
default valid = false
default index = 0
index = input.index
valid {
    io.jwt.verify_es256(input.path_segments[index - 1].token, input.auth_info.certificate) = true
}
"""


@pytest.fixture(scope="module")
def svids(tmp_path_factory):
    ca = CertificateAuthority.open(tmp_path_factory.mktemp("ca"), "td")
    return {name: ca.issue(name) for name in (NSC, NSMGR, "spiffe://td/other")}


def question(svids, caller=NSC, **rest):
    """Return the question of a manager whom ``caller`` calls."""
    segments = [
        PathSegment(name="client", id="c-0", token=token(svids, caller, NSMGR), expires=Timestamp(seconds=9)),
        PathSegment(name="manager", id="m-0", token=token(svids, NSMGR, caller), metrics={"a": "b"}),
    ]
    return Question(
        tokens=[one.token for one in segments],
        index=1,
        certificate=svids[caller].chain[0],
        peer=caller,
        now=NOW,
        reader=TokenReader(),
        names=[one.name for one in segments],
        **{"segments": segments, **rest},
    )


def token(svids, sub, aud):
    return jws.sign({"typ": "JWT"}, {"sub": sub, "aud": [aud], "exp": int(NOW) + 60}, svids[sub].key)


def written(folder, text, name="own.rego"):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_refusal_names_file_hop_and_identities(tmp_path, svids):
    """Who is meant passes; everybody else is told which file refused which hop, and who called whom."""
    file = written(tmp_path, ONLY_NSC)
    asked = policy.select([str(file)])
    policy.authorize(asked, question(svids))
    with pytest.raises(Unauthorized) as refusal:
        policy.authorize(asked, question(svids, "spiffe://td/other"))
    for part in (policy.REFUSED, str(file), "hop 0 (client -> manager)", "spiffe://td/other", NSMGR):
        assert part in str(refusal.value)
    assert refusal.value.remedy


def test_rego_of_before_version_one(tmp_path, svids):
    """Rules without ``if``, and signatures, are read as the field's own policies are."""
    asked = policy.select([str(written(tmp_path, AS_UPSTREAM))])
    policy.authorize(asked, question(svids))
    with pytest.raises(Unauthorized):
        policy.authorize(asked, forged(svids))


def forged(svids):
    asked = question(svids)
    return Question(
        tokens=asked.tokens,
        index=1,
        certificate=svids["spiffe://td/other"].chain[0],
        peer=NSC,
        now=NOW,
        reader=TokenReader(),
        segments=asked.segments,
    )


def test_the_document_of_a_connection(svids):
    """A Request is shown as Go writes a Path in JSON: what is empty is left out."""
    asked = question(svids)
    shown = rego.document(asked)
    assert shown.pop("auth_info")["certificate"].startswith("-----BEGIN CERTIFICATE-----\n")
    assert shown == {
        "index": 1,
        "path_segments": [
            {"name": "client", "id": "c-0", "token": asked.tokens[0], "expires": {"seconds": 9}},
            {"name": "manager", "id": "m-0", "token": asked.tokens[1], "metrics": {"a": "b"}},
        ],
    }
    assert json.dumps(shown)
    empty = Question([], 0, b"", "", NOW, TokenReader(), segments=[])
    assert rego.document(empty) == {"auth_info": {"certificate": ""}}


def test_the_document_of_a_registration(svids):
    """A registration is shown with the name, its owners, and who began the path."""
    asked = question(svids, segments=None, resource="nse-1", owners={"nse-1": [NSC, NSMGR]})
    shown = rego.document(asked)
    del shown["auth_info"]
    assert shown == {
        "resource_id": NSC,
        "resource_name": "nse-1",
        "resource_path_ids_map": {"nse-1": [NSC, NSMGR]},
        "path_segments": [{"token": one} for one in asked.tokens],
        "index": 1,
    }


def test_names_belong_to_a_prefix(tmp_path, svids):
    """A policy of the user's may say who registers which names; the refusal says whose name it is."""
    text = (
        'package nsm\nvalid if startswith(input.resource_name, "nsc-")\nvalid if input.resource_name == "x"\n'
    )
    asked = policy.select([str(written(tmp_path, text + "default valid := false\n"))])
    policy.authorize(asked, question(svids, segments=None, resource="nsc-a"))
    with pytest.raises(Unauthorized, match=f"{NSC} to register or unregister lb, which belongs to {NSMGR}"):
        policy.authorize(asked, question(svids, segments=None, resource="lb", owners={"lb": [NSMGR]}))


BROKEN = {
    "valid if {": (1, "unclosed"),
    "\n\nvalid if { foo.bar(input) }": (3, "no function foo.bar"),
    'valid if net.cidr_contains("10.0.0.0/8", "10.1.1.1")': (1, "no function net.cidr_contains"),
    "\nvalid if not blokced": (2, "blokced"),
    "allowed if true": (1, "no rule named valid"),
    "valid if a\na if valid\n": (1, ""),
}


@pytest.mark.parametrize("text", BROKEN)
def test_mistakes_are_told_at_the_start(tmp_path, text):
    """What cannot be evaluated, or would not mean what it seems to, ends the start, with file and line."""
    line, says = BROKEN[text]
    file = written(tmp_path, "package nsm\n" + text)
    with pytest.raises(Invalid) as error:
        policy.select([str(file)])
    where = line + 1 if says and "no rule" not in says else 1
    assert f"{file} cannot be used: line {where}: " in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize("text", ["nonsense", "", "# package nsm\nvalid := true"])
def test_what_is_no_policy(tmp_path, text):
    """A file without a package is not one."""
    with pytest.raises(Invalid, match=r"line 1: (it names no package|Invalid file)"):
        policy.select([str(written(tmp_path, text))])


@pytest.mark.parametrize(
    "rule",
    [
        "valid if input.nobody.says",
        'valid := object.get(input, "index", 1) > 0\nvalid := input.auth_info == 1',
    ],
)
def test_no_answer_is_an_error(tmp_path, svids, rule):
    """What is neither true nor false is told as an error of the policy, as Go does, and never passes."""
    file = tmp_path / "own.rego"
    asked = (rego.rego_policy(file, f"package nsm\n{rule}"),)
    with pytest.raises(Internal, match=r"own\.rego"):
        policy.authorize(asked, question(svids))


def test_a_constant_is_no_answer(tmp_path):
    """A rule that always says something else than true or false ends the start."""
    with pytest.raises(Invalid, match="valid is 3"):
        policy.select([str(written(tmp_path, "package nsm\nvalid := 3"))])


def test_without_the_engine(tmp_path, monkeypatch):
    """Where the extra is not installed, the start says how to install it."""
    monkeypatch.setitem(__import__("sys").modules, "regopy", None)
    with pytest.raises(NotFound, match="no engine") as error:
        policy.select([str(written(tmp_path, ONLY_NSC))])
    assert "nsmesh[rego]" in error.value.remedy


def test_files_beside_the_shipped_ones(tmp_path):
    """A mask of shipped names selects the built-in policies and own files; a changed copy takes its place."""
    folder = tmp_path / "opa"
    assert policy.select(["etc/nsm/opa/common/.*.rego"], folder=folder) == (
        rules.tokens_valid,
        rules.tokens_expired,
        rules.tokens_chained,
    )
    own = written(folder / "common", ONLY_NSC)
    changed = written(folder / "common", ONLY_NSC, "tokens_chained.rego")
    names = [one.__name__ for one in policy.select(["/etc/nsm/opa/common/.*.rego"], folder=folder)]
    assert sorted(names) == sorted(["tokens_valid", "tokens_expired", str(own), str(changed)])


def test_a_folder_of_own_policies(tmp_path):
    """A mask of another folder selects the files below it whose names match, and no others."""
    files = [written(tmp_path, ONLY_NSC, name) for name in ("a.rego", "sub/b.rego")]
    written(tmp_path, "not a policy", "README")
    found = policy.select([f"{tmp_path}/.*\\.rego"])
    assert [one.__name__ for one in found] == [str(file) for file in files]
    with pytest.raises(Invalid, match="selects no policy"):
        policy.select([f"{tmp_path}/c.*"])


def test_a_copy_of_what_is_shipped_is_the_function(tmp_path, monkeypatch):
    """A file whose words are those of a shipped policy is the built-in one, whatever its comments say."""
    text = "package nsm\n# says nothing\n\ndefault valid = false\n"
    monkeypatch.setattr(policy, "_SHIPPED", {policy.digest(text): "common/tokens_valid.rego"})
    file = written(tmp_path, "# a licence\n" + text.replace("\n\n", "\n  \n"))
    assert policy.select([str(file)]) == (rules.tokens_valid,)


def test_the_same_rules_in_rego(tmp_path, svids):
    """The field's rules, written in Rego, have the answers of the built-in functions."""
    folder = Path(__file__).parents[2] / "interop" / "opa" / "policies"
    for name in ("tokens_valid", "tokens_chained", "prev_token_signed", "client_allowed"):
        file = shutil.copy(folder / f"{name}.rego", tmp_path)
        for asked in (question(svids), forged(svids), question(svids, "spiffe://td/other")):
            ours = getattr(rules, name)(asked) is None
            (theirs,) = policy.select([str(file)])
            assert (theirs(asked) is None) == ours, name


def test_files_of_a_config_map_are_seen_once(tmp_path):
    """A kubelet keeps each file in a folder of its own, behind two links: it is one policy, by its name."""
    version = tmp_path / "..2026_11_26"
    version.mkdir()
    (version / "mine.rego").write_text(ONLY_NSC)
    (tmp_path / "..data").symlink_to(version.name)
    (tmp_path / "mine.rego").symlink_to("..data/mine.rego")
    assert len(policy.select((f"{tmp_path}/.*.rego",))) == 1
