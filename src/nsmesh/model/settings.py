"""Settings: one frozen dataclass per daemon, read from the environment.

The docstring under a field is its help. A field named ``max_token_lifetime`` is read from
``NSM_MAX_TOKEN_LIFETIME``; field metadata ``{"variable": "NODE_NAME"}`` names another variable. All mistakes
are reported at once, each with the variable's name. A variable that is set but empty gives the empty value.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nsmesh.model.duration import parse_duration

T = TypeVar("T")

PREFIX = "NSM_"


class Seconds(float):
    """A duration; written in Go syntax (``10m``, ``750ms``) in the environment."""


class SettingsError(Exception):
    """All that is wrong with the settings of one daemon, one line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting as help and reference pages show it."""

    field: str
    variable: str
    kind: str
    default: str
    help: str


def variable(field: dataclasses.Field[Any]) -> str:
    """Return the environment variable of a field."""
    named: str | None = field.metadata.get("variable")
    return named or PREFIX + field.name.upper()


def variables(cls: type[Any]) -> set[str]:
    """Return the environment variables of all fields of ``cls``."""
    assert dataclasses.is_dataclass(cls)
    return {variable(field) for field in dataclasses.fields(cls)}


def _bool(text: str) -> bool:
    folded = text.strip().lower()
    if folded in {"1", "t", "true"}:
        return True
    if folded in {"0", "f", "false", ""}:
        return False
    raise ValueError("not a boolean; write true or false")


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _map(text: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for pair in _list(text):
        key, colon, value = pair.partition(":")
        if not colon or not key:
            raise ValueError(f"{pair!r} is not key:value; write k:v,k2:v2")
        out[key.strip()] = value.strip()
    return out


def _json_map(text: str) -> dict[str, Any]:
    value = json.loads(text) if text.strip() else {}
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - a mistake in text, not in a type
    return value


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("not a whole number") from None


_PARSERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    str: ("text", str),
    int: ("number", _int),
    bool: ("true or false", _bool),
    Seconds: ("duration", lambda text: Seconds(parse_duration(text) if text else 0.0)),
    tuple[str, ...]: ("list", _list),
    dict[str, str]: ("map", _map),
    dict[str, Any]: ("JSON object", _json_map),
}


def _parser(hint: Any) -> tuple[str, Callable[[str], Any]]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        kind, parse = _parser(inner)
        return kind, lambda text: parse(text) if text else None
    return _PARSERS[hint]


def load(cls: type[T], environment: Mapping[str, str], **given: Any) -> T:
    """Build ``cls`` from ``given`` values, else from the environment, else from defaults.

    Raises :class:`SettingsError` with one line per mistake.
    """
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    wrong: list[str] = []
    for field in dataclasses.fields(cls):
        name = variable(field)
        if field.name in values:
            continue
        if name in environment:
            kind, parse = _parser(hints[field.name])
            try:
                values[field.name] = parse(environment[name])
            except ValueError as error:
                wrong.append(f"{name}={environment[name]!r}: {error} (wanted: {kind})")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            wrong.append(f"{name}: not set, and it has no default - set it")
    if wrong:
        raise SettingsError(wrong)
    return cls(**values)


def describe(cls: type[Any]) -> list[Setting]:
    """Return the settings of ``cls`` in order, with the docstrings under its fields as help."""
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    helps = field_docstrings(cls)
    out = []
    for field in dataclasses.fields(cls):
        kind, _ = _parser(hints[field.name])
        default = field.default
        if default is dataclasses.MISSING:
            default = "" if field.default_factory is dataclasses.MISSING else field.default_factory()
        text = ",".join(default) if isinstance(default, tuple) else str(default)
        out.append(Setting(field.name, variable(field), kind, text, helps.get(field.name, "")))
    return out


def field_docstrings(cls: type[Any]) -> dict[str, str]:
    """Return the docstrings under the fields of a dataclass and its bases, by field name."""
    out: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                out[field.target.id] = inspect.cleandoc(after.value.value)
    return out
