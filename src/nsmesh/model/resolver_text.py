"""What stands in a resolver file (resolv.conf(5)): the name servers of wires, put before the original ones.

The original stands in the new text as comments, line by line. Whoever finds the text can so give the original
back, also in a container that was restarted and whose other files are gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from nsmesh.model.messages import DNSConfig

HEADER = "# nsmesh keeps this file while wires name DNS servers. The lines with # | are the original."
KEPT = "# | "
ASKED = 3
"""How many name servers resolvers ask, at most: MAXNS of resolv.h."""

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


def with_wires(before: str, configs: Iterable[DNSConfig]) -> str:
    """Return the text of the file: ``configs`` first, then what ``before``, the original, says.

    Without a name server or domain in ``configs`` that is the original itself. What is no address or no
    domain is left out.
    """
    configs = list(configs)
    ours = [ip for config in configs for ip in config.dns_server_ips if is_server(ip)]
    domains = [name for config in configs for name in config.search_domains if is_domain(name)]
    if not ours and not domains:
        return before
    theirs: list[str] = []
    others = []
    for line in before.split("\n"):
        words = line.split()
        if words[:1] in (["search"], ["domain"]):
            theirs = words[1:]  # of several such lines a resolver takes the last
        elif words[:1] != ["nameserver"] and words:
            others.append(line)
    lines = [HEADER]
    lines += [f"nameserver {server}" for server in dict.fromkeys([*ours, *servers(before)])]
    if searched := list(dict.fromkeys([*domains, *theirs])):
        lines.append(f"search {' '.join(searched)}")
    kept = [f"{KEPT}{line}" for line in before.split("\n")]
    return "\n".join([*lines, *others, *kept, ""])
