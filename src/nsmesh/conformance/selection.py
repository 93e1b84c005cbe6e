"""Selection: which endpoint answers, by the matches of a service and the labels of a Request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nsmesh.conformance.actor import status_of
from nsmesh.conformance.case import Deviation, Group, expect
from nsmesh.conformance.provider import LABEL, providing
from nsmesh.conformance.world import World
from nsmesh.model.messages import Destination, Match, Metadata

GROUP = Group("selection")

ENDPOINTS: Mapping[str, Mapping[str, str]] = {"a": {"app": "a"}, "b": {"app": "b", "node": "n1"}}


@dataclass(frozen=True, slots=True)
class Rule:
    """One match: what it asks for, where it leads (None: no route), whether it may pass."""

    source: Mapping[str, str] = field(default_factory=dict)
    to: Mapping[str, str] | None = None
    fallthrough: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A table row: ``expected`` are the endpoints that may answer; empty: there is no candidate."""

    what: str
    rules: tuple[Rule, ...]
    labels: Mapping[str, str]
    expected: str
    endpoint: str = ""


_FOR_X = Rule({"x": "1"}, {"app": "a"})
_NODE = (Rule(to={"node": "{{ .node }}"}),)
ROWS: dict[str, Row] = {
    "metadata-only": Row("a match with metadata and no route leads to all", (Rule(),), {}, "ab"),
    "route": Row("a route leads to the endpoints that have its labels", (Rule(to={"app": "b"}),), {}, "b"),
    "source": Row("a source selector that is there", (_FOR_X,), {"x": "1", "y": "2"}, "a"),
    "second": Row("the first match that applies decides", (_FOR_X, Rule(to={"app": "b"})), {}, "b"),
    "fallthrough": Row(
        "a match without candidates falls through where it may",
        (Rule(to={"app": "z"}, fallthrough=True), Rule(to={"app": "a"})),
        {},
        "a",
    ),
    "template": Row("a template is filled with the Request's labels", _NODE, {"node": "n1"}, "b"),
    "by-name": Row("an endpoint that is named is taken", (Rule(to={"app": "b"}),), {}, "a", endpoint="a"),
    "no-fallthrough": Row(
        "a match without candidates ends the search", (Rule(to={"app": "z"}), Rule(to={"app": "a"})), {}, ""
    ),
    "no-match": Row("no match applies: no candidates", (_FOR_X,), {"x": "2"}, ""),
    "template-absent": Row("a template of a label that is absent finds nothing", _NODE, {}, ""),
}


async def _check(world: World, name: str, row: Row) -> str:
    here = Metadata(labels={LABEL: world.run})
    matches = [
        Match(
            source_selector=rule.source,
            routes=[] if rule.to is None else [Destination(destination_selector=rule.to)],
            fallthrough=rule.fallthrough,
            metadata=here,
        )
        for rule in row.rules
    ]
    service = world.name(f"select-{name}")
    async with providing(world, ENDPOINTS, {service: matches}) as provider:
        nsmgr = await world.nsmgr()
        settled = await provider.ask(world.wanted("settle", provider.service))
        await nsmgr.close(settled)
        request = world.wanted("select", service, labels=row.labels)
        if row.endpoint:
            request.connection.network_service_endpoint_name = world.name(row.endpoint)
        if not row.expected:
            status, text = await status_of(nsmgr.request(request))
            return expect(status != "OK" and "found" in text, f"{status}: {text[:80]}")
        answer = await provider.ask(request)
        await nsmgr.close(answer)
        chosen = answer.network_service_endpoint_name.rpartition("-")[2]
        if chosen not in row.expected:
            raise Deviation(f"endpoint {chosen}")
        return f"endpoint {chosen}"


def _add(name: str, row: Row) -> None:
    expected = f"endpoint {' or '.join(row.expected)}" if row.expected else "no candidate"

    @GROUP.case(name, "5.3", f"{row.what}: {expected}")
    async def check(world: World) -> str:
        return await _check(world, name, row)


for _name, _row in ROWS.items():
    _add(_name, _row)
