"""Calls to the control interface, as commands make them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from nsmesh import rpc
from nsmesh.api import control_pb2
from nsmesh.cli.context import Context
from nsmesh.core.errors import MeshError, Refused
from nsmesh.model import control


async def steps(context: Context, path: str, message: Any) -> list[dict[str, Any]]:
    """Make a call that reports steps; print each as it happens, return the facts.

    Raises the first failed step as an error after all steps were printed.
    """
    failure: MeshError | None = None
    facts: list[dict[str, Any]] = []
    async with context.control() as client:
        async for body in client.stream(path, message.SerializeToString()):
            step = control_pb2.Step.FromString(body)
            if step.json:
                facts.append(json.loads(step.json))
            if step.failed:
                failure = failure or Refused(step.text, remedy=step.remedy)
                context.say(f"x {step.text}", fg="red", err=True)
            else:
                context.say(step.text)
    if failure is not None:
        raise failure
    return facts


async def items(
    client: rpc.Client, what: str, *, name: str = "", watch: bool = False
) -> AsyncIterator[control_pb2.Item]:
    """Yield the items of one kind, then changes where ``watch`` is set."""
    request = control_pb2.GetRequest(what=what, name=name, watch=watch)
    async for body in client.stream(control.GET, request.SerializeToString()):
        yield control_pb2.Item.FromString(body)


async def rows(client: rpc.Client, what: str, *, name: str = "") -> list[dict[str, Any]]:
    """Return the items of one kind as plain data."""
    return [json.loads(item.json) async for item in items(client, what, name=name)]


async def status(client: rpc.Client) -> dict[str, Any]:
    """Return the mesh's status as plain data."""
    reply = await client.unary(control.STATUS, control_pb2.Empty().SerializeToString())
    data: dict[str, Any] = json.loads(control_pb2.Item.FromString(reply.message).json)
    return data


def read_sources(files: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (text, source) of each file; directories give their YAML and JSON files, ``-`` is stdin."""
    from nsmesh.cli.files import expand  # noqa: PLC0415 - only apply and delete read files

    out = []
    for path in files:
        if path == "-":
            out.append((sys.stdin.read(), "stdin"))
        else:
            out.extend(expand(path))
    return out
