"""Find: the template's rules, and the watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nsmesh.conformance.actor import Peer, following
from nsmesh.conformance.case import Group, expect
from nsmesh.conformance.world import World
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels

GROUP = Group("find")


def _entry(
    world: World, name: str, services: list[str], url: str = "", **labels: str
) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=world.name(name),
        network_service_names=[world.name(service) for service in services],
        network_service_labels={
            world.name(service): NetworkServiceLabels(labels=labels) for service in services
        },
        url=url or f"tcp://127.0.0.1:1/{name}",
    )


@asynccontextmanager
async def _stored(world: World, *entries: NetworkServiceEndpoint) -> AsyncIterator[Peer]:
    registry = await world.registry()
    try:
        for entry in entries:
            await registry.register(entry)
        yield registry
    finally:
        for entry in entries:
            await registry.unregister(entry)


async def _finds(world: World, template: NetworkServiceEndpoint, *expected: str) -> str:
    two = _entry(world, "two", ["s1", "s2"], "tcp://10.0.0.2:5001", app="x", tier="t")
    one = _entry(world, "one", ["s1"], "tcp://10.0.0.1:5001", app="x")
    async with _stored(world, one, two) as registry:
        ours = {world.name("one"), world.name("two")}
        seen = sorted(name.rpartition("-")[2] for name in await registry.names(template) & ours)
    return expect(seen == sorted(expected), f"found {', '.join(seen) or 'nothing'}")


@GROUP.case("all", "1.4", "an empty template finds everything: one, two")
async def everything(world: World) -> str:
    """Ask with nothing set."""
    return await _finds(world, NetworkServiceEndpoint(), "one", "two")


@GROUP.case("name", "1.4", "the name is compared whole: one")
async def name(world: World) -> str:
    """Ask by name."""
    return await _finds(world, NetworkServiceEndpoint(name=world.name("one")), "one")


@GROUP.case("name-is-no-prefix", "1.4", "a part of a name finds nothing")
async def part_of_a_name(world: World) -> str:
    """Ask by the beginning of a name."""
    return await _finds(world, NetworkServiceEndpoint(name=world.name("on")))


@GROUP.case("services-subset", "1.4", "the template's services are a subset of the stored ones: two")
async def services(world: World) -> str:
    """Ask for two services."""
    names = [world.name("s2"), world.name("s1")]
    return await _finds(world, NetworkServiceEndpoint(network_service_names=names), "two")


@GROUP.case("labels", "1.4", "every label of the template is there and equal: two")
async def labels(world: World) -> str:
    """Ask for a label that only one has."""
    wanted = {world.name("s1"): NetworkServiceLabels(labels={"app": "x", "tier": "t"})}
    return await _finds(world, NetworkServiceEndpoint(network_service_labels=wanted), "two")


@GROUP.case("labels-of-a-service", "1.4", "labels under a service that an entry does not have: nothing")
async def labels_elsewhere(world: World) -> str:
    """Ask for labels under another service."""
    wanted = {world.name("s3"): NetworkServiceLabels(labels={"app": "x"})}
    return await _finds(world, NetworkServiceEndpoint(network_service_labels=wanted))


@GROUP.case("url-substring", "1.4", "the stored URL contains the template's: one")
async def url(world: World) -> str:
    """Ask by a part of a URL."""
    return await _finds(world, NetworkServiceEndpoint(url="10.0.0.1"), "one")


@GROUP.case("service-name", "1.4", "a service is found by its whole name, and not by half of it")
async def service(world: World) -> str:
    """Ask for a service."""
    registry = await world.registry()
    stored = NetworkService(name=world.name("svc"), payload="IP")
    await registry.register(stored)
    try:
        whole = await registry.find(NetworkService(name=stored.name))
        half = await registry.find(NetworkService(name=stored.name[:-1]))
        other = await registry.find(NetworkService(name=stored.name, payload="ETHERNET"))
    finally:
        await registry.unregister(stored)
    counts = len(whole), len(half), len(other)
    return expect(counts == (1, 0, 0), f"whole {counts[0]}, half {counts[1]}, other payload {counts[2]}")


@GROUP.case("payload-default", "4.6", "a service without a payload is stored with IP")
async def payload(world: World) -> str:
    """Register a service without a payload."""
    registry = await world.registry()
    stored = NetworkService(name=world.name("bare"))
    answer, _ = await registry.register(stored)
    await registry.unregister(stored)
    return expect(answer.payload == "IP", f"payload {answer.payload or 'empty'}")


@GROUP.case(
    "watch", "1.4", "what is there, then each update, then the deletion with its body; open all along"
)
async def watch(world: World) -> str:
    """Watch an endpoint through its life."""
    registry = await world.registry()
    entry = _entry(world, "watched", ["s"], app="1")
    template = NetworkServiceEndpoint(name=entry.name)
    await registry.register(entry)
    seen = []
    async with following(registry.watch(template)) as stream:
        for action in (None, "update", "delete"):
            if action == "update":
                entry.network_service_labels[world.name("s")].labels["app"] = "2"
                await registry.register(entry)
            elif action == "delete":
                await registry.unregister(entry)
            item = await stream.next(2.0)
            if item is None:
                seen.append(f"nothing ({stream.ended or 'open'})")
                continue
            found, deleted = item
            label = found.network_service_labels[world.name("s")].labels.get("app", "no body")
            seen.append(f"{'deleted' if deleted else 'put'} {label}")
        quiet = await stream.next(0.3)
        seen.append("open" if quiet is None and not stream.ended else f"ended {stream.ended}")
    return expect(seen == ["put 1", "put 2", "deleted 2", "open"], ", ".join(seen))


@GROUP.case("watch-empty", "1.4", "a watch that finds nothing stays open")
async def watch_nothing(world: World) -> str:
    """Watch what is not there."""
    registry = await world.registry()
    async with following(registry.watch(NetworkServiceEndpoint(name=world.name("nobody")))) as stream:
        item = await stream.next(1.0)
        return expect(item is None and not stream.ended, stream.ended or "open")
