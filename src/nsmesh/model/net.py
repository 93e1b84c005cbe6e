"""What is wrong with an address, prefix or gateway that somebody wrote, and what to write instead."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

Problem = tuple[str, str]
"""What is wrong, and the remedy; both empty when nothing is."""


def address_problem(text: str) -> Problem:
    """Judge the address of an interface with its prefix length: ``10.0.0.1/24``."""
    try:
        address = ip_interface(text)
    except ValueError:
        return f"{text!r} is no address with a prefix length", "write for example 10.0.0.1/24 or fd00::1/64"
    if "/" not in text:
        length = 24 if address.version == 4 else 64
        return f"{text!r} has no prefix length", f"write for example {text}/{length}"
    return "", ""


def prefix_problem(text: str) -> Problem:
    """Judge the destination of a route: ``10.0.0.0/8``, no host bits set."""
    if text == "default":
        return "'default' could be IPv4 or IPv6", "write 0.0.0.0/0 or ::/0"
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is no CIDR prefix", "write for example 10.0.0.0/8 or fd00::/48"
    if "/" not in text or int(ip_interface(text).ip) != int(network.network_address):
        return f"{text!r} is no prefix, but an address", f"write {network}"
    return "", ""


def host_problem(text: str) -> Problem:
    """Judge an address without a prefix length, for example a gateway."""
    try:
        ip_address(text)
    except ValueError:
        return f"{text!r} is no IP address", "write for example 10.0.0.1, without a prefix length"
    return "", ""


def same_family(one: str, other: str) -> bool:
    """Return whether two valid addresses or prefixes are of one IP version."""
    return (":" in one) == (":" in other)
