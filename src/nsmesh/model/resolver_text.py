"""What stands in a resolver file (resolv.conf(5)) while a DNS server of ours answers for it.

The original stands in the new text as comments, line by line. Whoever finds the text can so give the original
back, also in a container that was restarted and whose other files are gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

HEADER = "# nsmesh keeps this file while wires name DNS servers. The lines with # | are the original."
KEPT = "# | "

_DOMAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})\Z")
_SERVER = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\Z")


def original(text: str) -> str:
    """Return what the file held before: ``text`` itself, where it is none of ours."""
    lines = text.split("\n")
    if lines[0] != HEADER:
        return text
    return "\n".join(line.removeprefix(KEPT) for line in lines if line.startswith(KEPT))


def is_server(text: str) -> bool:
    """Return whether it is an address that a resolver file can name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return _SERVER.match(text) is not None


def is_domain(text: str) -> bool:
    """Return whether it is a domain that a resolver file can name; an endpoint's word is not trusted."""
    return _DOMAIN.match(text) is not None


def servers(text: str) -> list[str]:
    """Return the name servers of a resolver file, in its order."""
    return [
        words[1] for words in map(str.split, text.split("\n")) if words[:1] == ["nameserver"] and words[1:]
    ]


def domains(text: str) -> list[str]:
    """Return the domains that a resolver file has searched: of several such lines the last one's."""
    lines = [words[1:] for words in map(str.split, text.split("\n")) if words[:1] in _SEARCHED]
    return lines[-1] if lines else []


_SEARCHED = (["search"], ["domain"])


def with_server(before: str, server: str, more: Iterable[str]) -> str:
    """Return the text of the file by which ``server`` alone is asked, and the domains ``more`` are searched.

    ``before`` is the original. Its own domains are searched first, so that a short name that was known before
    the wires means the same as it did. What is no domain is left out.
    """
    lines = [HEADER, f"nameserver {server}"]
    theirs = domains(before)
    if searched := list(dict.fromkeys([*theirs, *(name for name in more if is_domain(name))])):
        lines.append(f"search {' '.join(searched)}")
    replaced = (["nameserver"], *_SEARCHED)
    lines += [line for line in before.split("\n") if line.split() and line.split()[:1] not in replaced]
    kept = [f"{KEPT}{line}" for line in before.split("\n")]
    return "\n".join([*lines, *kept, ""])
