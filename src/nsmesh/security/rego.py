"""Users' own policies in Rego, evaluated by the engine of the extra ``nsmesh[rego]``.

A policy is a file with a package and a rule ``valid``. It is asked with the document that policies of the Go
implementation are asked with (contract 3.3): of a Request or Close the path, of a registration the name, its
owners and the tokens of the path; of both the certificate of the caller. True passes, false refuses, and
anything else is no answer: the call fails as one that could not be decided.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nsmesh.core.errors import Invalid, NotFound
from nsmesh.model.messages import PathSegment
from nsmesh.security.rego_source import line_of, mistakes, package_of
from nsmesh.security.rules import Policy, Question, Refusal, Undecided, shown

MAX_BYTES = 1 << 20
"""Largest policy file that is read."""

_TRIAL: Mapping[str, Any] = {"auth_info": {"certificate": ""}, "path_segments": [], "index": 0}
_PLACE = re.compile(r"\|(\d+)\|")
_SAYS = re.compile(r"\(errormsg \d+:([^)]*)\)")


def rego_policy(path: Path, text: str) -> Policy:
    """Return a policy that is evaluated at each call; it is named as its file is.

    Raises NotFound without the engine, Invalid with the line of what is wrong with the text.
    """
    engine = _Engine(path, text)
    trial = engine.ask(_TRIAL)
    if isinstance(trial, _Broken):
        raise _bad(path, 1, trial.why)

    def ask(question: Question) -> Refusal | None:
        answer = engine.ask(document(question))
        if isinstance(answer, _Broken):
            raise Undecided(f"{path}: {answer.why}")
        if answer is None:
            raise Undecided(f"{path} says neither true nor false")
        if answer:
            return None
        hop = question.index - 1 if question.index and question.tokens else None
        return Refusal(f"it is not valid for {shown(question.peer or None)} to {_aim(question)}", hop)

    ask.__name__ = str(path)
    return ask


def _aim(question: Question) -> str:
    if question.resource:
        owners = question.owners.get(question.resource)
        whose = f", which belongs to {shown(owners[0])}" if owners else ""
        return f"register or unregister {shown(question.resource)}{whose}"
    own = (
        question.claims(question.index) if question.tokens and question.index < len(question.tokens) else None
    )
    return f"call {shown(own.subject if own else None)}"


def document(question: Question) -> dict[str, Any]:
    """Return the input document of a question, as the Go implementation writes it."""
    common = {"auth_info": {"certificate": _pem(question.certificate)}}
    if question.segments is not None:
        path: dict[str, Any] = {"path_segments": [_segment(one) for one in question.segments]}
        if not question.segments:
            del path["path_segments"]  # an empty list is left out, and so is the index 0
        return common | path | ({"index": question.index} if question.index else {})
    claims = question.claims(0) if question.tokens else None
    return common | {
        "resource_id": claims.subject if claims and claims.subject else "",
        "resource_name": question.resource,
        "resource_path_ids_map": {name: list(ids) for name, ids in question.owners.items()},
        "path_segments": [{"token": token} for token in question.tokens or ()],
        "index": question.index,
    }


def _segment(segment: PathSegment) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("name", "id", "token"):
        if value := getattr(segment, name):
            found[name] = value
    if segment.HasField("expires"):
        expires = {"seconds": segment.expires.seconds, "nanos": segment.expires.nanos}
        found["expires"] = {name: value for name, value in expires.items() if value}
    if segment.metrics:
        found["metrics"] = dict(segment.metrics)
    return found


def _pem(certificate: bytes) -> str:
    if not certificate:
        return ""
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM).decode()


class _Broken:
    """An evaluation that ended in an error."""

    def __init__(self, why: str) -> None:
        self.why = why


def _bad(path: Path, line: int, what: str) -> Invalid:
    return Invalid(
        f"the policy {path} cannot be used: line {line}: {what}", remedy="correct it; `opa check` says more"
    )


class _Engine:
    """One policy, parsed once. The engine's own types are known here alone."""

    def __init__(self, path: Path, text: str) -> None:
        try:
            regopy: Any = importlib.import_module("regopy")
            quiet: Any = importlib.import_module("regopy.rego_shared").LogLevel.NONE
        except (ImportError, OSError) as error:  # OSError: a library that the engine needs
            raise NotFound(
                f"the policy {path} is in Rego, and there is no engine for it: {error}",
                remedy="pip install 'nsmesh[rego]'; it needs libatomic.so.1 (Debian: apt install libatomic1)",
            ) from error
        self._engine = regopy.Interpreter()
        self._engine.log_level = quiet  # it would write to our standard output
        found = mistakes(text, self._engine.is_builtin)
        try:
            self._engine.add_module(path.name, text)
        except Exception as error:
            place, says = _PLACE.search(str(error)), _SAYS.search(str(error))
            # the engine counts bytes
            before = text.encode()[: int(place[1]) if place else 0].decode(errors="replace")
            raise _bad(path, line_of(before, len(before)), says[1] if says else "it is no Rego") from error
        if found:
            raise _bad(path, found[0].line, found[0].what)
        self._query = f"x = data.{package_of(text)}.valid"

    def ask(self, asked: Mapping[str, Any]) -> bool | _Broken | None:
        """Evaluate; None where ``valid`` is undefined."""
        try:
            self._engine.set_input(dict(asked))
            output = self._engine.query(self._query)
            if not output.ok():
                return _Broken(
                    "two rules or functions have different answers, or its data are of a wrong kind"
                )
            if not output.results or "x" not in output.results[0].bindings:
                return None
            answer = output.results[0].bindings["x"]
        except json.JSONDecodeError:  # an error that it takes for an answer
            return _Broken(
                "a function is called with what it does not take, or rules ask each other for ever"
            )
        except Exception as error:  # noqa: BLE001 - of a type of the engine
            said = _SAYS.search(str(error))
            return _Broken(said[1] if said else str(error).splitlines()[0])
        return answer if isinstance(answer, bool) else _Broken(f"valid is {shown(answer)}")


def read_policy(path: Path) -> str:
    """Return the text of a policy file; raises NotFound, or Invalid for one that is no text."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(f"the policy {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise Invalid(f"the policy {path} has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"the policy {path} is not UTF-8 text") from error


def files_of(folder: Path, pattern: re.Pattern[str]) -> Sequence[Path]:
    """Return the files below a folder whose names, seen from it, a pattern matches entirely.

    What a kubelet keeps of a ConfigMap, in folders that begin with two dots, is not seen twice.
    """
    if not folder.is_dir():
        return ()
    names = ((file, file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return sorted(
        file
        for file, name in names
        if pattern.fullmatch(name.as_posix()) and not any(part.startswith("..") for part in name.parts)
    )
