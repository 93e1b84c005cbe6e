"""The functions of Go text/template that can serve a selector, on texts, numbers, truth values and maps."""

from __future__ import annotations

import html
import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote_plus

from nsmesh.model.template_syntax import TemplateError


class _Missing:
    """The value of a key that the map does not have; it prints as ``<no value>``."""

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()
LONGEST = 65_536
"""Characters that a template may produce; a label value has 63."""

_VERB = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>[0-9]*)(?:\.(?P<precision>[0-9]*))?(?P<verb>.?)", re.DOTALL
)


def show(value: Any) -> str:
    """Return ``value`` as an action prints it."""
    if value is MISSING:
        return "<no value>"
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{value[key]}' for key in sorted(value))}]"
    return str(value)


def truth(value: Any) -> bool:
    """Return whether ``value`` counts as true: not empty, not zero, not missing."""
    return bool(value)


def _float(value: float) -> str:
    """Return the shortest digits that mean ``value``, with an exponent from a million on."""
    digits, _, exponent = f"{Decimal(repr(value)).normalize():e}".lower().partition("e")
    if -5 < int(exponent) < 6:
        return f"{Decimal(repr(value)).normalize():f}"
    return f"{digits}e{'-' if exponent.startswith('-') else '+'}{exponent.lstrip('+-').zfill(2)}"


def _present(value: Any) -> Any:
    """Return what a function sees: a missing value is nil to it."""
    return None if value is MISSING else value


def _kind(value: Any) -> str:
    return "nil" if value is None or value is MISSING else type(value).__name__


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) or isinstance(other, Mapping):
        if _kind(one) == "nil" or _kind(other) == "nil":
            return False
        raise TemplateError("maps cannot be compared")
    if "nil" in {_kind(one), _kind(other)}:
        return _kind(one) == _kind(other)
    if _kind(one) != _kind(other):
        raise TemplateError("incompatible types for comparison")
    return bool(one == other)


def _eq(*args: Any) -> bool:
    if len(args) < 2:
        raise TemplateError("missing argument for comparison")
    return any(_equal(args[0], other) for other in args[1:])


def _ne(*args: Any) -> bool:
    _count(args, 2)
    return not _equal(*args)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    def function(*args: Any) -> bool:
        _count(args, 2)
        if _kind(args[0]) != _kind(args[1]) or _kind(args[0]) not in {"str", "int", "float"}:
            raise TemplateError("incompatible types for comparison")
        return compare(*args)

    return function


def _count(args: tuple[Any, ...], count: int) -> None:
    if len(args) != count:
        raise TemplateError(f"wrong number of arguments: {len(args)} instead of {count}")


def _not(*args: Any) -> bool:
    _count(args, 1)
    return not truth(args[0])


def _len(*args: Any) -> int:
    _count(args, 1)
    if isinstance(args[0], str):
        return len(args[0].encode(errors="surrogateescape"))
    if isinstance(args[0], Mapping):
        return len(args[0])
    raise TemplateError(f"{_kind(args[0])} has no length")


def _index(*args: Any) -> Any:
    if not args or _kind(args[0]) == "nil":
        raise TemplateError("index of nothing")
    value = args[0]
    for key in args[1:]:
        if isinstance(value, Mapping) and isinstance(key, str):
            value = value.get(key, "")
        elif isinstance(value, str) and type(key) is int:
            raw = value.encode(errors="surrogateescape")
            if not 0 <= key < len(raw):
                raise TemplateError(f"index {key} is out of range")
            value = raw[key]
        else:
            raise TemplateError(f"{_kind(value)} has no index {key!r}")
    return value


def _slice(*args: Any) -> str:
    if not args or not isinstance(args[0], str) or len(args) > 3:
        raise TemplateError("only a text can be cut, with one or two indexes")
    raw = args[0].encode(errors="surrogateescape")
    bounds = [*args[1:]]
    if any(type(bound) is not int or not 0 <= bound <= len(raw) for bound in bounds):
        raise TemplateError("a bound is no index of the text")
    low, high = (bounds + [0, len(raw)][len(bounds) :])[:2]
    if low > high:
        raise TemplateError("the bounds are in the wrong order")
    return raw[low:high].decode(errors="surrogateescape")


def _print(*args: Any) -> str:
    """Join values; a blank stands only between two that are both no text."""
    out = ""
    for number, value in enumerate(args):
        if number and not isinstance(value, str) and not isinstance(args[number - 1], str):
            out += " "
        out += show(_present(value))
    return out


def _println(*args: Any) -> str:
    return " ".join(show(_present(value)) for value in args) + "\n"


def _printf(*args: Any) -> str:
    if not args or not isinstance(args[0], str):
        raise TemplateError("printf needs a format")
    left = [_present(value) for value in args[1:]]

    def one(found: re.Match[str]) -> str:
        if found["verb"] == "%":
            return "%"
        if not found["verb"]:
            return "%!(NOVERB)"
        return _pad(found, left.pop(0)) if left else f"%!{found['verb']}(MISSING)"

    out = _VERB.sub(one, args[0])
    if left:
        out += f"%!(EXTRA {', '.join(_typed(value) for value in left)})"
    return out


def _type(value: Any) -> str:
    names = {str: "string", int: "int", float: "float64", bool: "bool", type(None): "<nil>"}
    return names.get(type(value), "map[string]string")


def _typed(value: Any) -> str:
    return "<nil>" if value is None else f"{_type(value)}={show(value)}"


def _pad(found: re.Match[str], value: Any) -> str:
    flags, verb = found["flags"], found["verb"]
    if set(flags) & set("+# ") or found["precision"] is not None:
        raise TemplateError("this form of printf is not supported in a selector")
    text = _verb(verb, value)
    width = int(found["width"] or "0")
    if width > LONGEST:
        raise TemplateError("this width is not supported in a selector")
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        if not isinstance(value, int):
            raise TemplateError("zeros in front of a text are not supported in a selector")
        return text.zfill(width)
    return text.rjust(width)


def _verb(verb: str, value: Any) -> str:
    plain = (
        verb == "v" or (verb == "s" and isinstance(value, str)) or (verb == "t" and isinstance(value, bool))
    )
    if plain:
        return show(value)
    if verb == "T":
        return _type(value)
    if isinstance(value, str) and verb == "q" and value.isprintable():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, str) and verb in "xX":
        return _case(verb, value.encode(errors="surrogateescape").hex())
    if type(value) is int and verb in "xXdboc":
        return chr(value) if verb == "c" else _case(verb, format(value, verb.lower()))
    return _wrong_verb(verb, value)


def _case(verb: str, text: str) -> str:
    return text.upper() if verb == "X" else text


def _wrong_verb(verb: str, value: Any) -> str:
    """Return what is printed for a verb that the type of the value does not have."""
    unknown = verb.isalpha() and verb not in "sdtxXboqceEfFgGpUOvTw"
    known = verb in "sdtxXboq" and not isinstance(value, Mapping | float)
    if unknown or (known and not (verb == "q" and type(value) is int)):
        return f"%!{verb}({_typed(value)})"
    raise TemplateError(f"%{verb} is not supported in a selector")


def _joined(args: tuple[Any, ...]) -> str:
    return _print(*(show(MISSING) if _kind(value) == "nil" else value for value in args))


def _html(*args: Any) -> str:
    text = _joined(args)
    return html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;").replace("\0", "\ufffd")


def _urlquery(*args: Any) -> str:
    text = _joined(args)
    return quote_plus(text, safe="~", errors="surrogateescape")


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "and": lambda *args: next((value for value in args[:-1] if not truth(value)), args[-1]),
    "or": lambda *args: next((value for value in args[:-1] if truth(value)), args[-1]),
    "not": _not,
    "eq": _eq,
    "ne": _ne,
    "lt": _ordered(operator.lt),
    "le": _ordered(operator.le),
    "gt": _ordered(operator.gt),
    "ge": _ordered(operator.ge),
    "len": _len,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": _println,
    "printf": _printf,
    "html": _html,
    "urlquery": _urlquery,
}
"""By name. Arguments and results are text, int, float, bool, a map of texts, None, or :data:`MISSING`."""
