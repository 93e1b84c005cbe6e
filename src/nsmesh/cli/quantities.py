"""Values of options that are more than text: callbacks that read quantities with a unit, and lists."""

from __future__ import annotations

import math

import click

from nsmesh.model.duration import parse_duration
from nsmesh.model.names import nearest

BETWEEN_NODES = ("VXLAN", "GENEVE", "GRE", "SRV6", "WIREGUARD")
"""Mechanisms that join forwarders of two nodes, in their usual order."""


KINDS = ("linux", "ovs")
"""Forwarders that a node may have."""


def forwarders(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the kinds of forwarders in a list such as ``linux,ovs``, each once."""
    found = tuple(dict.fromkeys(name.strip().lower() for name in value.split(",") if name.strip()))
    for name in found:
        if name not in KINDS:
            raise click.BadParameter(
                f"{name} is no kind of forwarder; there are {', '.join(KINDS)}", context, parameter
            )
    if not found:
        raise click.BadParameter("a node needs a forwarder", context, parameter)
    return found


def seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Return a time such as ``2ms`` or ``1.5s`` in seconds."""
    try:
        found = parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    if found < 0:
        raise click.BadParameter(f"{value!r} is negative", context, parameter)
    return found


def percent(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Return a share such as ``0.1%`` in percent; the sign may be left out."""
    try:
        found = float(value.removesuffix("%"))
    except ValueError:
        found = math.nan
    if not 0 <= found <= 100:
        raise click.BadParameter(f"{value!r} is no share; write for example 0.1%", context, parameter)
    return found


def labels(context: click.Context, parameter: click.Parameter, value: str) -> dict[str, str]:
    """Return labels in a list such as ``zone=a,rack=7``."""
    found = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, equals, text = item.partition("=")
        if not equals or not name or not text or ":" in item:
            raise click.BadParameter(f"{item!r} is no label; write for example zone=a", context, parameter)
        found[name] = text
    return found


def mechanisms(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the types of mechanisms between nodes in a list such as ``WIREGUARD,VXLAN``."""
    found = tuple(name.strip().upper() for name in value.split(",") if name.strip())
    for name in found:
        if name not in BETWEEN_NODES:
            near = nearest(name, BETWEEN_NODES)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(BETWEEN_NODES)}"
            raise click.BadParameter(f"{name} is no mechanism between nodes; {hint}", context, parameter)
    return found
