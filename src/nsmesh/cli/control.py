"""Calls to the control interface, as commands make them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from nsmesh import rpc
from nsmesh.api import control_pb2
from nsmesh.cli.context import Context, tell
from nsmesh.core.errors import Invalid, MeshError, Refused
from nsmesh.model import control


async def steps(context: Context, path: str, message: Any) -> list[dict[str, Any]]:
    """Make a call that reports steps; print each as it happens, return the facts.

    Raises the last failed step as an error, after all steps and other errors were printed.
    """
    failures: list[MeshError] = []
    facts: list[dict[str, Any]] = []
    async with context.control() as client:
        async for body in client.stream(path, message.SerializeToString()):
            step = control_pb2.Step.FromString(body)
            if step.json:
                facts.append(json.loads(step.json))
            if step.failed:
                failures.append(Refused(step.text, remedy=step.remedy))
            else:
                context.say(step.text)
    for failure in failures[:-1]:
        tell(failure)
    if failures:
        raise failures[-1]
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


def read_manifests(files: tuple[str, ...]) -> list[control_pb2.Manifest]:
    """Return the texts of files, directories (their YAML and JSON files) and ``-`` (standard input).

    All are checked before any is used. Raises Invalid with every mistake, and others.
    """
    if not files:
        return []
    from nsmesh.cli.files import sources  # noqa: PLC0415 - only a few commands read files
    from nsmesh.model.manifest import ManifestErrors, load  # noqa: PLC0415 - likewise

    manifests, wrong = [], []
    for found in sources(files):
        try:
            if not load(found.text, found.name):
                wrong.append(f"{found.name} has no document")
        except ManifestErrors as error:
            wrong.append(str(error))
        manifests.append(control_pb2.Manifest(text=found.text, source=found.name, directory=found.directory))
    if wrong:
        raise Invalid("\n".join(wrong))
    return manifests
