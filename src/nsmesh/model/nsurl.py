"""The URLs by which a workload names the network services that it wants.

``kernel://service@domain/interface?label=value`` means: a kernel interface of that name, a wire to that
service (of another registry domain), requested with those labels. Annotations and ``NSM_NETWORK_SERVICES``
hold several of them, separated by commas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote, unquote_plus

from nsmesh.model.messages import KERNEL, MEMIF, VHOST_USER
from nsmesh.model.names import LONGEST_INTERFACE, interface_problem, nearest

VFIO = "VFIO"
MECHANISMS = (KERNEL, MEMIF, VFIO)
"""What a pod may ask for, as in NSM."""
ON_A_HOST = (*MECHANISMS, VHOST_USER)
"""What a workload may ask for, unless the caller says otherwise: machines run on hosts."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_SERVICE = re.compile(r"[A-Za-z0-9](?:[-_.~A-Za-z0-9]*[A-Za-z0-9])?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SEED = 10
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class NsUrlError(ValueError):
    """A text that names no network service.

    ``position`` counts characters of the text from 1, ``what`` what is wrong there, ``remedy`` what to do.
    """

    def __init__(self, position: int, what: str, remedy: str) -> None:
        super().__init__(position, what, remedy)
        self.position = position
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"character {self.position}: {self.what} - {self.remedy}"


@dataclass(frozen=True, slots=True)
class NetworkServiceUrl:
    """One wish for a wire.

    ``mechanism``: type in upper case (``KERNEL``); its class is LOCAL. ``service``: ``name`` or
    ``name@domain``. ``interface``: its name, or empty (one is generated). ``labels``: labels of the request.
    """

    mechanism: str
    service: str
    interface: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def domain(self) -> str:
        """The registry domain behind the first ``@``, or empty for the own one."""
        return self.service.partition("@")[2]

    def __str__(self) -> str:
        """Return the URL; parsing it again gives an equal record."""
        path = f"/{quote(self.interface, safe='@~!$&=+;')}" if self.interface else ""
        query = "&".join(
            f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in self.labels.items()
        )
        return f"{_scheme(self.mechanism)}://{self.service}{path}{'?' + query if query else ''}"


def parse(text: str, mechanisms: tuple[str, ...] = ON_A_HOST) -> NetworkServiceUrl:
    """Return the wish that one URL stands for; raises :class:`NsUrlError`."""
    return _parse_at(text, 1, mechanisms)


def parse_list(text: str, mechanisms: tuple[str, ...] = ON_A_HOST) -> list[NetworkServiceUrl]:
    """Return the wishes of an annotation or of ``NSM_NETWORK_SERVICES``, in order; an empty text has none.

    Blanks and line ends around a URL are ignored. Two kernel interfaces of one name are refused: the second
    would take the place of the first. Raises :class:`NsUrlError`.
    """
    if not text.strip():
        return []
    wishes: list[NetworkServiceUrl] = []
    taken: dict[str, str] = {}
    for position, item in _items(text):
        wish = _parse_at(item, position, mechanisms)
        if wish.mechanism == KERNEL and wish.interface:
            if wish.interface in taken:
                raise NsUrlError(
                    position,
                    f"interface {wish.interface!r} is asked for twice, for {taken[wish.interface]!r} and for"
                    f" {wish.service!r}",
                    "give each wire an interface name of its own",
                )
            taken[wish.interface] = wish.service
        wishes.append(wish)
    return wishes


def generate_interface_name(service: str, random: Random) -> str:
    """Return a name for an interface to ``service`` where none was asked for: ``icmp-respo-4fYz``.

    The first ten characters of the service name, a dash, and random letters and digits up to 15 in total.
    Characters that the kernel refuses become dashes.
    """
    head = re.sub(r"[^!-~]|[/:%]", "-", service[:_SEED])
    tail = "".join(random.choices(_LETTERS, k=LONGEST_INTERFACE - 1 - len(head)))
    return f"{head}-{tail}"


def _items(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for raw in text.split(","):
        item = raw.strip()
        position = start + len(raw) - len(raw.lstrip()) + 1
        if not item:
            raise NsUrlError(
                min(start + 1, len(text)),
                "nothing stands between two commas",
                "remove the comma that is too many",
            )
        yield position, item
        start += len(raw) + 1


def _parse_at(text: str, start: int, mechanisms: tuple[str, ...]) -> NetworkServiceUrl:
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        host = re.sub(r"^[A-Za-z]+:/?", "", text) or "service"
        raise NsUrlError(start, f"{text!r} has no mechanism in front", f"write kernel://{host}")
    mechanism = _mechanism(scheme, start, mechanisms)
    at = start + len(scheme) + 3
    if "#" in rest:
        raise NsUrlError(
            at + rest.index("#"), "'#' has no meaning in a network service URL", "leave it out, or write %23"
        )
    head, _, query = rest.partition("?")
    authority, slash, path = head.partition("/")
    service = _service(authority, at, scheme)
    interface = _interface(path, at + len(authority) + len(slash), mechanism)
    labels = _labels(query, at + len(head) + 1)
    return NetworkServiceUrl(mechanism, service, interface, labels)


def _scheme(mechanism: str) -> str:
    """Return how a URL begins; no scheme has an underscore (RFC 3986)."""
    return mechanism.lower().replace("_", "-")


def _mechanism(scheme: str, at: int, mechanisms: tuple[str, ...]) -> str:
    known = {_scheme(mechanism): mechanism for mechanism in mechanisms}
    listed = ", ".join(f"{name}://" for name in sorted(known))
    if not _SCHEME.fullmatch(scheme):
        raise NsUrlError(at, f"{scheme!r} is no mechanism", f"begin with one of {listed}")
    if scheme.lower() not in known:
        guess = nearest(scheme, known)
        hint = f"did you mean {guess}://?" if guess else f"begin with one of {listed}"
        raise NsUrlError(at, f"the mechanism {scheme!r} is unknown", hint)
    return known[scheme.lower()]


def _service(authority: str, at: int, scheme: str) -> str:
    if not authority:
        raise NsUrlError(at, "the network service has no name", f"write {scheme}://SERVICE/INTERFACE")
    name, sign, domain = authority.partition("@")
    for part, what, offset in ((name, "network service", 0), (domain, "registry domain", len(name) + 1)):
        if not part and (sign or what == "network service"):
            raise NsUrlError(at + offset, f"the {what} has no name", "write SERVICE@DOMAIN, or SERVICE alone")
        if part and not _SERVICE.fullmatch(part):
            _refuse_name(part, what, at + offset)
    return authority


def _refuse_name(part: str, what: str, at: int) -> None:
    for offset, char in enumerate(part):
        if char == ":":
            raise NsUrlError(at + offset, f"the {what} {part!r} has a port or password", "leave it out")
        if not re.fullmatch(r"[-_.~A-Za-z0-9]", char):
            raise NsUrlError(
                at + offset,
                f"the {what} {part!r} contains {char!r}",
                "use letters, digits, '-', '_' and '.' in names",
            )
    raise NsUrlError(
        at,
        f"the {what} {part!r} begins or ends with {part[0]!r} or {part[-1]!r}",
        "use a letter or digit there",
    )


def _interface(path: str, at: int, mechanism: str) -> str:
    name = _unquote(path.replace("+", "%2B"), at)
    if not name:
        return ""
    problem = interface_problem(name)
    too_long = len(name) > LONGEST_INTERFACE
    if problem and not (too_long and mechanism != KERNEL):
        remedy = (
            f"shorten it, for example to {name[:LONGEST_INTERFACE]!r}" if too_long else "choose another name"
        )
        raise NsUrlError(at, problem, remedy)
    return name


def _labels(query: str, at: int) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in query.split("&"):
        if ";" in pair:
            raise NsUrlError(
                at + pair.index(";"), "';' cannot separate labels", "write '&', or %3B in a value"
            )
        name, _, text = pair.partition("=")
        key, value = _unquote(name, at), _unquote(text, at + len(name) + 1)
        if pair:
            if not key:
                raise NsUrlError(at, f"the label in {pair!r} has no name", "write LABEL=VALUE")
            labels[key] = f"{labels[key]},{value}" if key in labels else value
        at += len(pair) + 1
    return labels


def _unquote(text: str, at: int) -> str:
    bad = _BAD_ESCAPE.search(text)
    if bad:
        raise NsUrlError(at + bad.start(), f"'%' in {text!r} is not followed by two hex digits", "write %25")
    for offset, char in enumerate(text):
        if char.isspace() or not char.isprintable():
            raise NsUrlError(
                at + offset, f"{char!r} is not allowed in a URL", "write it as %XX, or remove it"
            )
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise NsUrlError(
            at, f"the escapes in {text!r} are no UTF-8", "escape the UTF-8 bytes of the text"
        ) from None
