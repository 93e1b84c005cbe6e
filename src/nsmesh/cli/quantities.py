"""Quantities with a unit, as values of options: callbacks that turn their text into numbers."""

from __future__ import annotations

import math

import click

from nsmesh.model.duration import parse_duration


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
