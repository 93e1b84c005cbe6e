"""Options of an endpoint: one frozen dataclass for each type of endpoint, from YAML and the environment.

The docstring under a field is its help. A field ``dns_configs`` is the YAML option ``dns_configs`` and the
variable ``NSM_DNS_CONFIGS`` (or the one that its metadata ``variable`` names); the YAML wins. All mistakes
are reported at once.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import yaml

from nsmesh.core.errors import Invalid, MeshError
from nsmesh.model.duration import format_duration, parse_duration
from nsmesh.model.names import nearest
from nsmesh.model.prefix import parse_groups, parse_prefix
from nsmesh.model.settings import Seconds, Setting, field_docstrings, variable

T = TypeVar("T")

Read = Callable[[object], Any]
"""Turns what YAML or a variable gives into a field's value; raises ValueError or MeshError."""


def reading(read: Read, kind: str) -> dict[str, Any]:
    """Return the metadata of a field that is read by ``read``; ``kind`` is what its help says is wanted."""
    return {"read": read, "kind": kind}


def read_options(
    cls: type[T], options: Mapping[str, Any] | None, environment: Mapping[str, str], *, endpoint: str
) -> T:
    """Build ``cls`` from YAML ``options``, else from the environment, else from defaults.

    ``endpoint`` is named in the error. Raises Invalid with one line for each mistake.
    """
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    given = dict(options or {})
    values: dict[str, Any] = {}
    wrong = [_unknown(str(name), fields) for name in given if name not in fields]
    for name, field in fields.items():
        if name in given:
            where, value = f"option {name}", given[name]
        elif variable(field) in environment:
            where, value = variable(field), environment[variable(field)]
        else:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                wrong.append(f"option {name}: it is not given, and it has no default")
            continue
        kind, read = _reader(field, hints[name])
        try:
            values[name] = read(value)
        except (ValueError, MeshError) as error:
            wanted = f" (wanted: {kind})" if isinstance(error, ValueError) else ""
            wrong.append(f"{where}: {error}{wanted}")
    if wrong:
        count = "one mistake" if len(wrong) == 1 else f"{len(wrong)} mistakes"
        lines = "\n".join(f"  {line}" for text in wrong for line in text.splitlines())
        raise Invalid(f"{count} in the options of endpoint {endpoint}\n{lines}")
    return cls(**values)


def describe_options(cls: type[Any]) -> list[Setting]:
    """Return the options of ``cls`` in order, as help and reference pages show them."""
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    helps = field_docstrings(cls)
    out = []
    for field in dataclasses.fields(cls):
        default = field.default
        if default is dataclasses.MISSING:
            default = "" if field.default_factory is dataclasses.MISSING else field.default_factory()
        kind, _ = _reader(field, hints[field.name])
        out.append(Setting(field.name, variable(field), kind, _shown(default), helps.get(field.name, "")))
    return out


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Seconds):
        return format_duration(default)
    if isinstance(default, tuple):
        return ",".join(f"[{_shown(item)}]" if isinstance(item, tuple) else str(item) for item in default)
    return "" if (not default and default != 0) or dataclasses.is_dataclass(default) else str(default)


def structure(value: object) -> object:
    """Return ``value``; text, as it comes from a variable, is read as YAML (JSON is YAML too)."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"{value!r} is neither JSON nor YAML") from None


def prefix_groups(value: object) -> tuple[tuple[str, ...], ...]:
    """Read groups of prefixes; one address is given from each.

    Text is ``a,b`` (two groups) or ``[a,b],[c]``, as in :func:`nsmesh.model.prefix.parse_groups`. A YAML list
    of prefixes is one group, as its text ``[a,b]`` would be; a list with lists in it is one of groups.
    """
    if isinstance(value, str):
        return tuple(tuple(group) for group in parse_groups(value))
    if not isinstance(value, list):
        raise ValueError(f"{value!r} are no prefixes")  # noqa: TRY004 - a mistake in text, not in a type
    if all(isinstance(item, str) for item in value):
        value = [value] if value else []
    groups = [group if isinstance(group, list) else [group] for group in value]
    return tuple(tuple(str(parse_prefix(str(member))) for member in group) for group in groups)


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    near = nearest(name, known)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(known) or 'none'}"
    return f"option {name}: it does not exist; {hint}"


def _text(value: object) -> str:
    if isinstance(value, (dict, list)) or value is None:
        raise ValueError(f"{value!r} is not text")
    return str(value)


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(_text(value))
    except ValueError:
        raise ValueError(f"{value!r} is not a whole number") from None


def _flag(value: object) -> bool:
    folded = str(value).strip().lower()
    if folded in {"1", "t", "true"}:
        return True
    if folded in {"0", "f", "false", ""}:
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _seconds(value: object) -> Seconds:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Seconds(value)
    text = _text(value)
    return Seconds(parse_duration(text) if text else 0.0)


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(_text(item) for item in value)
    return tuple(part.strip() for part in _text(value).split(",") if part.strip())


def _pairs(value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): _text(item) for key, item in value.items()}
    out = {}
    for pair in _words(value):
        key, colon, item = pair.partition(":")
        if not colon or not key:
            raise ValueError(f"{pair!r} is not key:value")
        out[key.strip()] = item.strip()
    return out


def _mapping(value: object) -> dict[str, Any]:
    value = structure(value) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a mapping")  # noqa: TRY004 - a mistake in text, not in a type
    return value


_READERS: dict[Any, tuple[str, Read]] = {
    str: ("text", _text),
    int: ("number", _whole),
    bool: ("true or false", _flag),
    Seconds: ("duration", _seconds),
    tuple[str, ...]: ("list", _words),
    dict[str, str]: ("map", _pairs),
    dict[str, Any]: ("mapping", _mapping),
}


def _reader(field: dataclasses.Field[Any], hint: Any) -> tuple[str, Read]:
    kind, read = _READERS.get(hint, ("", structure))
    return field.metadata.get("kind") or kind, field.metadata.get("read") or read
